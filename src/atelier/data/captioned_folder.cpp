#include "atelier/data/captioned_folder.h"

#include <numeric>

#include "atelier/conditions/unicode_text.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/data/image_folder.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

class CaptionedFolder final : public Dataset {
public:
    CaptionedFolder(std::shared_ptr<const Dataset> images, std::vector<std::string> captions) : images_(std::move(images)), captions_(std::move(captions)), labels_(captions_.size()) {
        std::iota(labels_.begin(), labels_.end(), 0);
        std::string all = images_->hash();
        for (const std::string& caption : captions_) all += "\n" + caption;
        hash_ = core::sha256(all);
    }

    std::int64_t size() const override { return images_->size(); }
    std::int64_t classes() const override { return size(); }
    Tensor samples(std::span<const std::int64_t> indices) const override { return images_->samples(indices); }
    const std::vector<std::int64_t>& labels() const override { return labels_; }
    const std::vector<std::string>& captions() const override { return captions_; }
    const models::DataForm& form() const override { return images_->form(); }
    const std::string& hash() const override { return hash_; }

private:
    std::shared_ptr<const Dataset> images_;
    std::vector<std::string> captions_;
    std::vector<std::int64_t> labels_;
    std::string hash_;
};

fs::path caption_of(const fs::path& image) { return fs::path(image).replace_extension(".txt"); }

std::string read_caption(const fs::path& image) {
    constexpr std::size_t longest = 64 << 10;
    const fs::path path = caption_of(image);
    if (!fs::exists(path)) core::fail("{}: has no caption; write it into {}", image.string(), path.filename().string());
    std::string caption = core::read_text(path, longest);
    while (!caption.empty() && (caption.back() == '\n' || caption.back() == '\r' || caption.back() == ' ')) caption.pop_back();
    if (caption.empty()) core::fail("{}: is empty; it is to say what {} shows", path.string(), image.filename().string());
    conditions::code_points(caption, path.string());
    return caption;
}

}  // namespace

bool is_captioned_folder(const fs::path& folder) {
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (is_image_name(entry.path().string()) && entry.is_regular_file() && fs::exists(caption_of(entry.path()))) return true;
    }
    return false;
}

std::shared_ptr<const Dataset> open_captioned_folder(const DataRequest& request) {
    EncodedImages images = images_in_folder(request);
    if (request.limit > 0) images.count = std::min(images.count, request.limit);
    std::vector<std::string> captions;
    for (std::int64_t i = 0; i < images.count; ++i) captions.push_back(read_caption(images.name(i)));
    return std::make_shared<CaptionedFolder>(open_encoded(std::move(images), request.limit), std::move(captions));
}

}  // namespace atelier::data
