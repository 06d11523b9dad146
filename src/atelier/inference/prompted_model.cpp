#include "atelier/inference/prompted_model.h"

#include "atelier/diffusion/guidance.h"

namespace atelier::inference {

PromptReader::PromptReader(const std::filesystem::path& directory, const networks::Network& network, std::optional<conditions::Router> router)
    : encoder_(models::read_prompt_encoder(directory)), router_(std::move(router)), reads_states_(network.tokens > 0) {
    const std::string empty;
    none_ = read({&empty, 1}).told;
}

PromptReader::Reading PromptReader::read(std::span<const std::string> prompts) const {
    const diffusion::TextReading reading = encoder_.read(prompts);
    return {reads_states_ ? reading.states : reading.embeddings, reading.embeddings};
}

conditions::Router::Place PromptReader::place(const Tensor& embedding) const {
    return router_ ? place_of(*router_, embedding) : conditions::Router::Place{};
}

conditions::Router::Place place_of(const conditions::Router& router, const Tensor& embedding) {
    const Tensor numbers = embedding.contiguous();
    return router.place({numbers.const_data_ptr<float>(), static_cast<std::size_t>(numbers.numel())});
}

PromptedModel::PromptedModel(models::Model read, const Sampling& sampling, const Engine& engine, const Tensor& none, double guidance)
    : model(std::move(read)), sampling_(sampling), device_(engine.device), denoiser_(open_denoiser(model, engine)) {
    if (guidance != 1) denoiser_ = std::make_shared<diffusion::GuidedDenoiser>(denoiser_, none, guidance);
}

const std::string& PromptedModel::hash() const {
    if (hash_.empty()) hash_ = model.hash();
    return hash_;
}

Tensor PromptedModel::draw(std::span<const Draw> draws, const Tensor& told) const {
    return drawn_in_batches(draws, model.network.data_shape, [&](const Tensor& noise, std::size_t first) {
        const Tensor condition = told.narrow(0, static_cast<std::int64_t>(first), noise.size(0));
        return drawn_by(*denoiser_, sampling_, model.range, noise.to(device_), {condition.to(device_)},
                        draws.subspan(first, static_cast<std::size_t>(noise.size(0)))).to(at::kCPU);
    });
}

}  // namespace atelier::inference
