#include "atelier/data/prompt_list.h"

#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/data/prompt_file.h"

namespace atelier::data {

namespace {

constexpr std::string_view prompts_prefix = "prompts:";

class PromptList final : public Dataset {
public:
    PromptList(std::vector<std::string> prompts, std::string hash)
        : prompts_(std::move(prompts)), hash_(std::move(hash)), labels_(prompts_.size()) {
        std::iota(labels_.begin(), labels_.end(), 0);
    }

    std::int64_t size() const override { return static_cast<std::int64_t>(prompts_.size()); }
    std::int64_t classes() const override { return size(); }
    const std::vector<std::int64_t>& labels() const override { return labels_; }
    const std::vector<std::string>& captions() const override { return prompts_; }
    const data::SampleSpec& spec() const override { return spec_; }
    const std::string& hash() const override { return hash_; }
    bool has_samples() const override { return false; }

    Tensor samples(std::span<const std::int64_t>) const override {
        core::fail(
            "the data are prompts alone; this needs images, a folder with a .txt of its caption "
            "beside each");
    }

private:
    std::vector<std::string> prompts_;
    std::string hash_;
    std::vector<std::int64_t> labels_;
    data::SampleSpec spec_;
};

}  // namespace

bool is_prompt_list(const std::filesystem::path& path) {
    return path.string().starts_with(prompts_prefix);
}

std::shared_ptr<const Dataset> open_prompt_list(const DataRequest& request) {
    const std::string path = request.path.string().substr(prompts_prefix.size());
    PromptFile file(path);
    std::vector<std::string> prompts;
    for (std::string prompt;
         (request.limit == 0 || file.line() < request.limit) && file.next(prompt);)
        prompts.push_back(std::move(prompt));
    if (prompts.empty()) core::fail("{}: holds no prompt", path);
    return std::make_shared<PromptList>(std::move(prompts), core::sha256_of_file(path));
}

}  // namespace atelier::data
