#include "atelier/diffusion/denoiser.h"

#include "atelier/core/error.h"
#include "atelier/diffusion/encoded_text.h"

namespace atelier::diffusion {

Condition one_hot(std::span<const std::int64_t> labels, std::int64_t classes, at::Device device) {
    if (classes == 0) return {};
    Tensor encoded = at::zeros({static_cast<std::int64_t>(labels.size()), classes}, at::kFloat);
    auto rows = encoded.accessor<float, 2>();
    for (std::size_t i = 0; i < labels.size(); ++i) {
        if (labels[i] < 0 || labels[i] >= classes)
            core::fail("class {} is out of range; the model knows 0 to {}", labels[i], classes - 1);
        rows[static_cast<std::int64_t>(i)][labels[i]] = 1;
    }
    return {encoded.to(device)};
}

Condition Condition::rows(std::int64_t first, std::int64_t count) const {
    const auto of = [&](const Tensor& whole) {
        return whole.defined() ? whole.narrow(0, first, count) : whole;
    };
    return {of(labels), of(augment), of(ids)};
}

EdmDenoiser::EdmDenoiser(const networks::Network& network, const backends::Parameters& parameters,
                         const NoiseSchedule& noise, const backends::Compute& compute)
    : network_(network), parameters_(parameters), noise_(noise), compute_(compute) {}

void check_condition(const networks::Network& network, const Condition& condition) {
    if (network.label_dim > 0 && !condition.labels.defined()) {
        core::fail("the network is conditioned on {} classes, but no labels were given",
                   network.label_dim);
    }
}

networks::Inputs network_inputs(const networks::Network& network, const Tensor& x_t,
                                const Preconditioning& with, const Condition& condition) {
    check_condition(network, condition);
    networks::Inputs inputs{expand_like(with.c_in, x_t) * x_t, with.c_noise, std::nullopt};
    if (condition.labels.defined()) inputs.labels = condition.labels;
    if (condition.augment.defined()) inputs.augment = condition.augment;
    return inputs;
}

Tensor EdmDenoiser::denoise(const Tensor& x_t, const Tensor& sigma,
                            const Condition& condition) const {
    return denoise_and_encode(x_t, sigma, condition).estimate;
}

EdmDenoiser::Output EdmDenoiser::denoise_and_encode(const Tensor& x_t, const Tensor& sigma,
                                                    const Condition& condition) const {
    const Preconditioning with = noise_.preconditioning(sigma);
    const Condition labelled = with_labels(network_, parameters_, condition);
    const backends::LowPrecision precision(x_t.device().type(), compute_.type);
    backends::TorchOps backend(parameters_, "", compute_.recompute);
    const networks::Outputs out =
        network_.forward(backend, network_inputs(network_, x_t, with, labelled));
    const Tensor f = backends::tensor_of(out.raw).to(x_t.scalar_type());
    return {expand_like(with.c_skip, x_t) * x_t + expand_like(with.c_out, x_t) * f,
            backends::tensor_of(out.bottleneck).to(x_t.scalar_type())};
}

Tensor EdmDenoiser::encode(const Tensor& x_t, const Tensor& sigma,
                           const Condition& condition) const {
    const Preconditioning with = noise_.preconditioning(sigma);
    const Condition labelled = with_labels(network_, parameters_, condition);
    const backends::LowPrecision precision(x_t.device().type(), compute_.type);
    backends::TorchOps backend(parameters_, "", compute_.recompute);
    return backends::tensor_of(
               network_.encode(backend, network_inputs(network_, x_t, with, labelled)))
        .to(x_t.scalar_type());
}

}  // namespace atelier::diffusion
