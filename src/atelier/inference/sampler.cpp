#include "atelier/inference/sampler.h"

#include "atelier/diffusion/guidance.h"

namespace atelier::inference {

namespace {

/// A model of a model directory, which denoises from one noise level to the next.
class DenoisingSampler final : public Sampler {
public:
    DenoisingSampler(models::Model read, const Sampling& sampling, const Engine& engine,
                     std::vector<std::int64_t> classes, const Tensor& empty_prompt, double guidance)
        : model_(std::move(read)), sampling_(sampling), device_(engine.device) {
        if (sampling.method == Sampling::Method::few_step) sampling_ = default_sampling(model_);
        if (!empty_prompt.defined() && sampling_.method == Sampling::Method::one_step) {
            one_step_ = open_one_step(model_, engine, std::move(classes));
            return;
        }
        denoiser_ = open_denoiser(model_, engine);
        if (guidance != 1)
            denoiser_ =
                std::make_shared<diffusion::GuidedDenoiser>(denoiser_, empty_prompt, guidance);
    }
    DenoisingSampler(DenoisingSampler&&) = delete;  // the denoiser refers to the model

    Tensor draw(std::span<const SampleRequest> requests, const Conditioning& conditioning,
                const OnEvaluation&) const override {
        return draw_in_batches(
            requests, model_.network.data_shape, [&](const Tensor& noise, std::size_t first) {
                const std::int64_t n = noise.size(0);
                const Conditioning batch = conditioning.narrow(static_cast<std::int64_t>(first), n);
                if (one_step_) return one_step_->draw(noise, batch.classes);
                return run_sampler(*denoiser_, sampling_, model_.noise, noise.to(device_),
                                   condition_of(batch),
                                   requests.subspan(first, static_cast<std::size_t>(n)))
                    .to(at::kCPU);
            });
    }

    Tensor evaluate(const Tensor& z, const Conditioning& conditioning) const override {
        const at::NoGradGuard no_gradients;
        if (one_step_) return one_step_->draw(z, conditioning.classes);
        return diffusion::sample_one_step(*denoiser_, z.to(device_), model_.noise,
                                          condition_of(conditioning))
            .to(at::kCPU);
    }

    const std::string& hash() const override {
        if (hash_.empty()) hash_ = model_.hash();
        return hash_;
    }
    std::int64_t parameter_count() const override { return model_.parameter_count(); }

private:
    diffusion::Condition condition_of(const Conditioning& conditioning) const {
        if (conditioning.rows.defined()) return {conditioning.rows.to(device_)};
        return diffusion::one_hot(conditioning.classes, model_.network.label_dim, device_);
    }

    const models::Model model_;
    mutable std::string hash_;
    Sampling sampling_;
    at::Device device_;
    std::unique_ptr<OneStep> one_step_;  // one of these two
    std::shared_ptr<const diffusion::Denoiser> denoiser_;
};

}  // namespace

std::unique_ptr<Sampler> open_sampler(models::Model model, const Sampling& sampling,
                                      const Engine& engine, std::vector<std::int64_t> classes,
                                      const Tensor& empty_prompt, double guidance) {
    return std::make_unique<DenoisingSampler>(std::move(model), sampling, engine,
                                              std::move(classes), empty_prompt, guidance);
}

}  // namespace atelier::inference
