#include "atelier/inference/diffusers_sampler.h"

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/random_streams.h"

namespace atelier::inference {

DiffusersConditioner::DiffusersConditioner(const std::filesystem::path& path, const Engine& engine,
                                           const TextGuidance& guidance)
    : model_(path, engine), guidance_(guidance) {
    model_.tokenizer();  // reads it, so that `tokenizer` is thread-safe
}

Conditioning DiffusersConditioner::encode(std::span<const Condition> conditions) const {
    const at::NoGradGuard no_gradients;
    const std::lock_guard alone(busy_);
    std::map<std::string, Tensor> known;
    std::vector<Tensor> rows;
    for (const Condition& condition : conditions) {
        const std::string& prompt = prompt_of(condition);
        Tensor& states = known[prompt];
        if (!states.defined()) {
            const std::vector<std::string> prompts =
                guidance_.guides() ? std::vector{guidance_.negative, prompt} : std::vector{prompt};
            states = model_.read(model_.tokens(prompts)).hidden;
        }
        rows.push_back(states);
    }
    return {{}, at::stack(rows)};
}

DiffusersSampler::DiffusersSampler(const std::filesystem::path& path, const Engine& engine,
                                   const Sampling& sampling, const TextGuidance& guidance,
                                   std::vector<std::int64_t> shape)
    : model_(path, engine),
      sampling_(sampling),
      guidance_(guidance),
      shape_(std::move(shape)),
      schedule_(diffusion::DdpmSchedule::of(core::JsonObject(
          model_.directory().scheduler_config(), model_.directory().scheduler_file().string()))) {}

Tensor DiffusersSampler::predict(const Tensor& x, std::int64_t t, const Tensor& rows) const {
    const std::int64_t n = x.size(0), of_one = rows.size(1);
    const Tensor all = model_.predict(x.unsqueeze(1).expand({n, of_one, -1, -1, -1}).flatten(0, 1),
                                      at::full({n * of_one}, static_cast<double>(t), at::kFloat),
                                      rows.flatten(0, 1));
    if (!guidance_.guides()) return all;
    const Tensor pairs = all.unflatten(0, {n, of_one});
    return pairs.select(1, 0) + guidance_.scale * (pairs.select(1, 1) - pairs.select(1, 0));
}

Tensor DiffusersSampler::draw_one(const SampleRequest& request, const Tensor& rows,
                                  const OnEvaluation& on_evaluation) const {
    std::vector<std::int64_t> shape{1};
    shape.insert(shape.end(), shape_.begin(), shape_.end());
    Tensor noise = at::empty(shape, at::kFloat);
    core::RandomStream(request.seed, "noise", static_cast<std::uint64_t>(request.index))
        .fill_normal({noise.mutable_data_ptr<float>(), static_cast<std::size_t>(noise.numel())});
    const diffusion::Predictor predict_at = [&](const Tensor& x, std::int64_t t) {
        const Tensor predicted = predict(x, t, rows);
        if (on_evaluation) on_evaluation();
        return predicted;
    };
    return sampling_.method == Sampling::Method::ddim
               ? sample_ddim(schedule_, predict_at, noise, sampling_.steps)
               : sample_dpm(schedule_, predict_at, noise, sampling_.steps);
}

Tensor DiffusersSampler::draw(std::span<const SampleRequest> requests,
                              const Conditioning& conditioning,
                              const OnEvaluation& on_evaluation) const {
    const at::NoGradGuard no_gradients;
    std::vector<Tensor> latents;
    for (std::size_t i = 0; i < requests.size(); ++i)
        latents.push_back(draw_one(requests[i],
                                   conditioning.rows.narrow(0, static_cast<std::int64_t>(i), 1),
                                   on_evaluation));
    return at::cat(latents);
}

Tensor DiffusersSampler::evaluate(const Tensor& z, const Conditioning& conditioning) const {
    const at::NoGradGuard no_gradients;
    return predict(z, schedule_.steps() - 1, conditioning.rows);
}

const std::string& DiffusersSampler::hash() const {
    if (hash_.empty()) hash_ = hash_of(model_.directory());
    return hash_;
}

std::int64_t DiffusersSampler::parameter_count() const {
    return model_.directory().unet_weights().count();
}

std::vector<std::int64_t> latent_shape(const models::DiffusersDirectory& directory,
                                       std::int64_t height, std::int64_t width) {
    const networks::SdUnet unet = directory.unet();
    const networks::SdVae vae = directory.vae();
    const std::int64_t unit = vae.factor() * unet.factor();
    const auto latent_size = [&](std::int64_t pixels, const char* option) {
        if (pixels % unit != 0)
            throw core::UsageError(fmt::format("--{}: {} must be a multiple of {} for this model",
                                               option, pixels, unit));
        return pixels == 0 ? unet.sample_size : pixels / vae.factor();
    };
    return {unet.in_channels, latent_size(height, "height"), latent_size(width, "width")};
}

std::string hash_of(const models::DiffusersDirectory& directory) {
    std::string weights;
    for (const auto& part :
         {directory.unet_weights(), directory.vae_weights(), directory.text_weights()}) {
        for (const std::filesystem::path& file : part.files())
            weights += core::sha256_of_file(file);
    }
    return core::sha256(weights);
}

}  // namespace atelier::inference
