#include "atelier/inference/conditioner.h"

#include <map>

#include "atelier/core/error.h"

namespace atelier::inference {

namespace {

class ClassConditioner final : public Conditioner {
public:
    explicit ClassConditioner(std::int64_t classes) : classes_(classes) {}

    Conditioning encode(std::span<const Condition> conditions) const override {
        Conditioning encoded;
        for (const Condition& condition : conditions) {
            const std::int64_t class_id = class_of(condition);
            if (class_id < 0 || class_id >= classes_)
                throw core::UsageError(fmt::format(
                    "class {} is out of range; this model knows 0 to {}", class_id, classes_ - 1));
            encoded.classes.push_back(class_id);
        }
        return encoded;
    }

private:
    std::int64_t classes_;
};

/// The distinct prompts, and for each sample the index of its prompt among them.
struct DistinctPrompts {
    explicit DistinctPrompts(std::span<const Condition> conditions) {
        std::map<std::string, std::int64_t> known;
        for (const Condition& condition : conditions) {
            const std::string& prompt = prompt_of(condition);
            const auto [entry, inserted] =
                known.emplace(prompt, static_cast<std::int64_t>(prompts.size()));
            if (inserted) prompts.push_back(prompt);
            rows.push_back(entry->second);
        }
    }
    std::vector<std::string> prompts;
    std::vector<std::int64_t> rows;
};

}  // namespace

std::int64_t Conditioning::size() const {
    return rows.defined() ? rows.size(0) : static_cast<std::int64_t>(classes.size());
}

Conditioning Conditioning::select(std::span<const std::int64_t> positions) const {
    Conditioning selected;
    if (!classes.empty()) {
        for (const std::int64_t i : positions)
            selected.classes.push_back(classes[static_cast<std::size_t>(i)]);
    }
    const Tensor index =
        at::tensor(at::ArrayRef<std::int64_t>(positions.data(), positions.size()), at::kLong);
    if (rows.defined()) selected.rows = rows.index_select(0, index);
    if (embeddings.defined()) selected.embeddings = embeddings.index_select(0, index);
    if (pooled.defined()) selected.pooled = pooled.index_select(0, index);
    return selected;
}

Conditioning Conditioning::narrow(std::int64_t first, std::int64_t count) const {
    Conditioning some;
    if (!classes.empty())
        some.classes.assign(classes.begin() + first, classes.begin() + first + count);
    if (rows.defined()) some.rows = rows.narrow(0, first, count);
    if (embeddings.defined()) some.embeddings = embeddings.narrow(0, first, count);
    if (pooled.defined()) some.pooled = pooled.narrow(0, first, count);
    return some;
}

Conditioning Conditioning::joined(std::span<const Conditioning> parts) {
    Conditioning all;
    for (const Conditioning& part : parts)
        all.classes.insert(all.classes.end(), part.classes.begin(), part.classes.end());
    for (Tensor Conditioning::* member :
         {&Conditioning::rows, &Conditioning::embeddings, &Conditioning::pooled}) {
        std::vector<Tensor> tensors;
        for (const Conditioning& part : parts) {
            if ((part.*member).defined()) tensors.push_back(part.*member);
        }
        if (!tensors.empty()) all.*member = at::cat(tensors);
    }
    return all;
}

std::string Conditioner::truncated_tail(const std::string& prompt) const {
    return tokenizer() == nullptr ? "" : tokenizer()->truncated_tail(prompt);
}

std::unique_ptr<Conditioner> class_conditioner(std::int64_t classes) {
    return std::make_unique<ClassConditioner>(classes);
}

PromptConditioner::PromptConditioner(const std::filesystem::path& directory,
                                     const networks::Network& network, at::Device device)
    : encoder_(models::read_prompt_encoder(directory)), reads_states_(network.tokens > 0) {
    if (!device.is_cpu()) encoder_.parameters = encoder_.parameters.to(device);
    const Condition empty;
    empty_prompt_ = encode({&empty, 1}).rows;
}

Conditioning PromptConditioner::encode(std::span<const Condition> conditions) const {
    const DistinctPrompts distinct(conditions);
    const diffusion::EncodedText encoded = encoder_.encode(distinct.prompts);
    const Tensor embeddings = encoded.embeddings.to(at::kCPU);
    const Conditioning once{
        {}, reads_states_ ? encoded.states.to(at::kCPU) : embeddings, embeddings};
    return once.select(distinct.rows);
}

std::vector<Router::Decision> Router::assign(const Conditioning& conditioning) const {
    std::vector<Decision> decisions(static_cast<std::size_t>(conditioning.size()));
    if (!owners_) return decisions;
    const Tensor embeddings = conditioning.embeddings.defined()
                                  ? conditioning.embeddings.to(at::kCPU).contiguous()
                                  : Tensor();
    for (std::size_t i = 0; i < decisions.size(); ++i) {
        if (!embeddings.defined()) {
            decisions[i].student = owners_->route(conditioning.classes[i]);
            continue;
        }
        const auto width = static_cast<std::size_t>(embeddings.size(1));
        decisions[i] = owners_->decide({embeddings.const_data_ptr<float>() + i * width, width});
    }
    return decisions;
}

}  // namespace atelier::inference
