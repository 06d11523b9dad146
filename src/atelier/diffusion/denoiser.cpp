#include "atelier/diffusion/denoiser.h"

#include "atelier/backends/torch/transfer.h"
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
    return {backends::to_device(encoded, device)};
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

namespace {

std::vector<Tensor> run(const networks::Network& network, const NetworkInputs& inputs,
                        const backends::TorchOps& backend, networks::TraceScope scope) {
    const auto shape = [](const Tensor& tensor) { return tensor.sizes().vec(); };
    networks::InputsOf<graph::Shape> shapes{shape(inputs.x), shape(inputs.c_noise)};
    if (inputs.labels) shapes.labels = shape(*inputs.labels);
    if (inputs.augment) shapes.augment = shape(*inputs.augment);
    return backend.run(*networks::graph_of(network, shapes, scope), inputs.list());
}

}  // namespace

NetworkOutputs evaluate(const networks::Network& network, const NetworkInputs& inputs,
                        const backends::TorchOps& backend) {
    auto outputs = run(network, inputs, backend, networks::TraceScope::full);
    return {std::move(outputs[0]), std::move(outputs[1])};
}

Tensor evaluate_encoder(const networks::Network& network, const NetworkInputs& inputs,
                        const backends::TorchOps& backend) {
    return run(network, inputs, backend, networks::TraceScope::encoder_only)[0];
}

NetworkInputs network_inputs(const networks::Network& network, const Tensor& x_t,
                             const Preconditioning& with, const Condition& condition) {
    check_condition(network, condition);
    NetworkInputs inputs{expand_like(with.c_in, x_t) * x_t, with.c_noise};
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
    const NetworkOutputs out = evaluate(network_, network_inputs(network_, x_t, with, labelled),
                                        backends::TorchOps(parameters_, "", compute_.recompute));
    const Tensor f = out.raw.to(x_t.scalar_type());
    return {expand_like(with.c_skip, x_t) * x_t + expand_like(with.c_out, x_t) * f,
            out.bottleneck.to(x_t.scalar_type())};
}

Tensor EdmDenoiser::encode(const Tensor& x_t, const Tensor& sigma,
                           const Condition& condition) const {
    const Preconditioning with = noise_.preconditioning(sigma);
    const Condition labelled = with_labels(network_, parameters_, condition);
    const backends::LowPrecision precision(x_t.device().type(), compute_.type);
    return evaluate_encoder(network_, network_inputs(network_, x_t, with, labelled),
                            backends::TorchOps(parameters_, "", compute_.recompute))
        .to(x_t.scalar_type());
}

}  // namespace atelier::diffusion
