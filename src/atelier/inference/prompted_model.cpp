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
    if (!router_) return {};
    const Tensor numbers = embedding.contiguous();
    return router_->place(std::span<const float>(numbers.const_data_ptr<float>(), static_cast<std::size_t>(numbers.numel())));
}

PromptedModel::PromptedModel(models::Model read, const Sampling& sampling, const Engine& engine, const Tensor& none, double guidance)
    : model(std::move(read)), sampling_(sampling), device_(engine.device), denoiser_(open_denoiser(model, engine)) {
    if (guidance != 1) denoiser_ = std::make_shared<diffusion::GuidedDenoiser>(denoiser_, none, guidance);
}

Tensor PromptedModel::draw(std::span<const Draw> draws, const Tensor& told) const {
    const at::NoGradGuard no_gradients;
    std::vector<Tensor> parts;
    const auto count = static_cast<std::int64_t>(draws.size());
    for (std::int64_t first = 0; first < count; first += largest_batch) {
        const std::int64_t size = std::min(largest_batch, count - first);
        std::vector<Tensor> noise;
        for (const Draw& draw : draws.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(size))) {
            noise.push_back(diffusion::image_noise(draw.seed, draw.number, 1, model.network.data_shape));
        }
        parts.push_back(drawn_by(*denoiser_, sampling_, model.range, at::cat(noise).to(device_), {told.narrow(0, first, size).to(device_)}).to(at::kCPU));
    }
    return at::cat(parts);
}

}  // namespace atelier::inference
