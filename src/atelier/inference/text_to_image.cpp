#include "atelier/inference/text_to_image.h"

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/signals.h"
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

TextSampling::Method text_sampling_method(const std::string& name) {
    if (name == "ddim") return TextSampling::Method::ddim;
    if (name == "dpm++") return TextSampling::Method::dpm;
    throw core::UsageError(
        fmt::format("there is no sampler \"{}\" for prompts; known are ddim and dpm++", name));
}

Tensor draw(StableDiffusion& model, const std::string& prompt, const TextSampling& how,
            std::uint64_t seed, std::int64_t number,
            const std::function<void(std::int64_t)>& progress) {
    const networks::SdUnet& unet = model.unet();
    const networks::SdVae& vae = model.autoencoder().network();
    const std::int64_t unit = vae.factor() * unet.factor();
    const auto latent_size = [&](std::int64_t pixels, const char* option) {
        if (pixels % unit != 0)
            throw core::UsageError(fmt::format("--{}: {} must be a multiple of {} for this model",
                                               option, pixels, unit));
        return pixels == 0 ? unet.sample_size : pixels / vae.factor();
    };
    Tensor noise = at::empty(
        {1, unet.in_channels, latent_size(how.height, "height"), latent_size(how.width, "width")},
        at::kFloat);
    core::RandomStream(seed, "noise", static_cast<std::uint64_t>(number))
        .fill_normal({noise.mutable_data_ptr<float>(), static_cast<std::size_t>(noise.numel())});
    const auto schedule = diffusion::DdpmSchedule::of(core::JsonObject(
        model.directory().scheduler_config(), model.directory().scheduler_file().string()));
    const bool guided = how.guidance > 1;
    const std::vector<std::string> prompts =
        guided ? std::vector{how.negative, prompt} : std::vector{prompt};
    const Tensor hidden = model.read(model.tokens(prompts)).hidden;
    std::int64_t done = 0;
    const diffusion::Predictor predict = [&](const Tensor& x, std::int64_t t) {
        if (core::stop_requested()) throw core::Interrupted("interrupted; nothing was written");
        const std::int64_t n = hidden.size(0);
        const Tensor both = model.predict(
            x.expand({n, -1, -1, -1}), at::full({n}, static_cast<double>(t), at::kFloat), hidden);
        progress(++done);
        return guided ? both.narrow(0, 0, 1) +
                            how.guidance * (both.narrow(0, 1, 1) - both.narrow(0, 0, 1))
                      : both;
    };
    const bool ddim = how.method == TextSampling::Method::ddim;
    const Tensor latent = ddim ? sample_ddim(schedule, predict, noise, how.steps)
                               : sample_dpm(schedule, predict, noise, how.steps);
    return model.autoencoder().decode(latent / vae.scaling);
}

}  // namespace atelier::inference
