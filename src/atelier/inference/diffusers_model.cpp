#include "atelier/inference/diffusers_model.h"

#include "atelier/core/error.h"
#include "atelier/diffusion/encoded_text.h"
#include "atelier/inference/computed_network.h"
#include "atelier/models/prompt_encoder.h"

namespace atelier::inference {

using models::DiffusersFamily;

/// A text encoder and its tokenizer.
struct DiffusersModel::Tower {
    std::string part;
    networks::ClipText config;
    std::filesystem::path tokenizer_folder;
    std::unique_ptr<ComputedNetwork> network{};
    std::unique_ptr<conditions::ClipTokenizer> tokens{};

    const conditions::ClipTokenizer& tokenizer() {
        if (!tokens) tokens = std::make_unique<conditions::ClipTokenizer>(tokenizer_folder);
        return *tokens;
    }

    Tensor checked(const Tensor& given, const char* name) const {
        const Tensor ids = given.to(at::kCPU, at::kLong).contiguous();
        check_sizes(ids, name, {-1});
        if (ids.size(1) > config.positions)
            core::fail("\"{}\" is {}; the model reads at most {} tokens", name,
                       core::to_string(ids.sizes().vec()), config.positions);
        if (ids.min().item<std::int64_t>() < 0 ||
            ids.max().item<std::int64_t>() >= config.vocabulary)
            core::fail("\"{}\" contains ids outside of 0..{}", name, config.vocabulary - 1);
        return ids;
    }
};

DiffusersModel::DiffusersModel(const std::filesystem::path& path, const Engine& engine,
                               std::span<const models::LowRankFile> low_rank)
    : directory_(path),
      engine_(engine),
      deltas_(models::read_low_rank(low_rank, directory_)),
      autoencoder_(directory_.path() / "vae", engine) {
    for (const std::string& part : directory_.text_parts()) {
        towers_.push_back(std::make_unique<Tower>(
            Tower{part, directory_.text(part), directory_.tokenizers()[towers_.size()]}));
    }
}

DiffusersModel::~DiffusersModel() = default;

NamedNetwork& DiffusersModel::denoiser() {
    if (!denoiser_)
        denoiser_ = std::make_unique<NamedNetwork>(directory_.denoiser(), "denoise", engine_,
                                                   deltas_[directory_.denoiser_part()]);
    return *denoiser_;
}

Tensor DiffusersModel::predict(const NamedTensors& inputs) {
    return denoiser().run(inputs).begin()->second;
}

const std::vector<std::unique_ptr<DiffusersModel::Tower>>& DiffusersModel::towers() {
    if (towers_.empty())
        throw core::UsageError(directory_.path().string() +
                               ": reads classes and has no text encoder");
    directory_.require_readable_text();
    for (const auto& tower : towers_) {
        if (tower->network) continue;
        const bool first_form = directory_.family() == DiffusersFamily::stable_diffusion;
        const auto function = [config = tower->config, first_form](
                                  graph::Builder& ops, std::span<const graph::Value> in) {
            if (first_form) return std::vector{config.forward(ops, in[0])};
            const networks::ClipText::States states = config.states(ops, in[0]);
            return std::vector{states.last, states.penultimate};
        };
        tower->network = std::make_unique<ComputedNetwork>(directory_.text_weights(tower->part),
                                                           function, engine_, deltas_[tower->part]);
    }
    return towers_;
}

std::int64_t DiffusersModel::context_width() const {
    const models::DiffusersPart denoiser = directory_.denoiser();
    for (const auto& port : denoiser.functions().at("denoise").inputs) {
        if (port.name == "hidden") return port.shape.back();
    }
    return 0;
}

DiffusersModel::Text DiffusersModel::read(const Tensor& first_ids, const Tensor& second_ids) {
    std::vector<Tensor> hidden, pooled;
    for (const auto& tower : towers()) {
        const bool second = !hidden.empty() && second_ids.defined();
        const Tensor ids =
            tower->checked(second ? second_ids : first_ids, second ? "input_ids_2" : "input_ids");
        if (!hidden.empty() && ids.sizes() != hidden.front().sizes().slice(0, 2))
            core::fail("\"input_ids\" and \"input_ids_2\" must be of the same size");
        const std::vector<Tensor> states = tower->network->run({ids});
        hidden.push_back(states.back());
        pooled.push_back(
            states.front()
                .index({at::arange(ids.size(0)), diffusion::end_positions(tower->config, ids)})
                .contiguous());
    }
    if (directory_.family() == DiffusersFamily::stable_diffusion)
        return {hidden.front(), pooled.front()};
    const Tensor joined = at::cat(hidden, 2);
    if (directory_.family() == DiffusersFamily::sdxl) return {joined, pooled.back()};
    const std::int64_t width = context_width();
    if (joined.size(2) > width)
        core::fail("{}: the text encoders' states are {} wide, the transformer reads {}",
                   directory_.path().string(), joined.size(2), width);
    return {at::constant_pad_nd(joined, {0, width - joined.size(2), 0, joined.size(1)}),
            at::cat(pooled, 1)};
}

std::int64_t DiffusersModel::pooled_width() const {
    if (directory_.family() == DiffusersFamily::stable_diffusion)
        return towers_.front()->config.width;
    std::int64_t width = 0;
    for (const auto& tower : towers_) {
        const bool read = directory_.family() == DiffusersFamily::sd3 || tower == towers_.back();
        if (read) width += tower->config.projection;
    }
    return width;
}

DiffusersModel::Text DiffusersModel::encode(std::span<const std::string> prompts) {
    Tensor second;
    if (towers_.size() > 1) second = models::token_ids(towers_[1]->tokenizer(), prompts);
    return read(tokens(prompts), second);
}

const conditions::ClipTokenizer& DiffusersModel::tokenizer() {
    if (towers_.empty())
        throw core::UsageError(directory_.path().string() + ": reads classes and has no tokenizer");
    return towers_.front()->tokenizer();
}

Tensor DiffusersModel::tokens(std::span<const std::string> prompts) {
    return models::token_ids(tokenizer(), prompts);
}

}  // namespace atelier::inference
