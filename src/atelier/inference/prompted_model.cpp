#include "atelier/inference/prompted_model.h"

#include "atelier/diffusion/guidance.h"

namespace atelier::inference {

PromptReader::PromptReader(const std::filesystem::path& directory, const networks::Network& network,
                           std::optional<conditions::Router> router)
    : encoder_(models::read_prompt_encoder(directory)),
      router_(std::move(router)),
      reads_states_(network.tokens > 0) {
    const std::string empty;
    empty_prompt_ = encode({&empty, 1}).conditioning;
}

PromptReader::EncodedPrompts PromptReader::encode(std::span<const std::string> prompts) const {
    const diffusion::EncodedText encoded = encoder_.encode(prompts);
    return {reads_states_ ? encoded.states : encoded.embeddings, encoded.embeddings};
}

conditions::Router::Decision PromptReader::route(const Tensor& embedding) const {
    return router_ ? route_embedding(*router_, embedding) : conditions::Router::Decision{};
}

conditions::Router::Decision route_embedding(const conditions::Router& router,
                                             const Tensor& embedding) {
    const Tensor elements = embedding.contiguous();
    return router.decide(
        {elements.const_data_ptr<float>(), static_cast<std::size_t>(elements.numel())});
}

PromptedModel::PromptedModel(models::Model read, const Sampling& sampling, const Engine& engine,
                             const Tensor& empty_prompt, double guidance)
    : model(std::move(read)),
      sampling_(sampling),
      device_(engine.device),
      denoiser_(open_denoiser(model, engine)) {
    if (guidance != 1)
        denoiser_ = std::make_shared<diffusion::GuidedDenoiser>(denoiser_, empty_prompt, guidance);
}

const std::string& PromptedModel::hash() const {
    if (hash_.empty()) hash_ = model.hash();
    return hash_;
}

Tensor PromptedModel::draw(std::span<const Draw> draws, const Tensor& conditioning) const {
    return draw_in_batches(
        draws, model.network.data_shape, [&](const Tensor& noise, std::size_t first) {
            const Tensor condition =
                conditioning.narrow(0, static_cast<std::int64_t>(first), noise.size(0));
            return run_sampler(*denoiser_, sampling_, model.noise, noise.to(device_),
                               {condition.to(device_)},
                               draws.subspan(first, static_cast<std::size_t>(noise.size(0))))
                .to(at::kCPU);
        });
}

}  // namespace atelier::inference
