#include "atelier/inference/text_to_image.h"

#include "atelier/core/error.h"
#include "atelier/diffusion/encoded_text.h"
#include "atelier/inference/computed_network.h"
#include "atelier/models/prompt_encoder.h"

namespace atelier::inference {

namespace {

Tensor floats(const Tensor& tensor) { return tensor.to(at::kCPU, at::kFloat).contiguous(); }

}  // namespace

StableDiffusion::StableDiffusion(const std::filesystem::path& path, const Engine& engine)
    : directory_(path),
      engine_(engine),
      unet_config_(directory_.unet()),
      text_config_(directory_.text()),
      autoencoder_(directory_.path() / "vae", engine) {}

StableDiffusion::~StableDiffusion() = default;

Tensor StableDiffusion::predict(const Tensor& x, const Tensor& t, const Tensor& hidden) {
    const networks::SdUnet& network = unet_config_;
    check_sizes(x, "x", {network.in_channels, -1, -1});
    check_multiple(x, "x", network.factor());
    check_sizes(hidden, "hidden", {-1, network.context_width});
    if (t.dim() != 1 || t.size(0) != x.size(0) || hidden.size(0) != x.size(0))
        core::fail("x, t and hidden must have the same batch size; t is [N]");
    if (!unet_) {
        const auto forward = [network](graph::Builder& ops, std::span<const graph::Value> in) {
            return network.forward(ops, in[0], in[1], in[2]).predicted;
        };
        unet_ = std::make_unique<ComputedNetwork>(directory_.unet_weights(), forward, engine_);
    }
    return unet_->run({floats(x), floats(t), floats(hidden)});
}

StableDiffusion::Text StableDiffusion::read(const Tensor& given) {
    const networks::ClipText& network = text_config_;
    const Tensor ids = given.to(at::kCPU, at::kLong).contiguous();
    check_sizes(ids, "input_ids", {-1});
    if (ids.size(1) > network.positions)
        core::fail("\"input_ids\" is {}; the model reads at most {} tokens",
                   core::to_string(ids.sizes().vec()), network.positions);
    if (ids.min().item<std::int64_t>() < 0 ||
        ids.max().item<std::int64_t>() >= network.vocabulary) {
        core::fail("\"input_ids\" contains ids outside of 0..{}", network.vocabulary - 1);
    }
    if (!text_) {
        const auto forward = [network](graph::Builder& ops, std::span<const graph::Value> in) {
            return network.forward(ops, in[0]);
        };
        text_ = std::make_unique<ComputedNetwork>(directory_.text_weights(), forward, engine_);
    }
    const Tensor hidden = text_->run({ids});
    return {hidden, hidden.index({at::arange(ids.size(0)), diffusion::end_positions(network, ids)})
                        .contiguous()};
}

const conditions::ClipTokenizer& StableDiffusion::tokenizer() {
    if (!tokenizer_)
        tokenizer_ = std::make_unique<conditions::ClipTokenizer>(directory_.tokenizer());
    return *tokenizer_;
}

Tensor StableDiffusion::tokens(std::span<const std::string> prompts) {
    return models::token_ids(tokenizer(), prompts);
}

}  // namespace atelier::inference
