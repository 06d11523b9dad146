#include "atelier/inference/compiled_denoiser.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/inference/one_step_factors.h"

namespace atelier::inference {

namespace {

/// to[i] = factor * from[i]
void scaled(const float* from, float factor, std::int64_t count, float* to) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = factor * from[i];
}

/// out[i] = a x[i] + b f[i]
void combined(float a, const float* x, float b, const float* f, std::int64_t count, float* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = a * x[i] + b * f[i];
}

Tensor float_on_cpu(const Tensor& tensor) { return tensor.to(at::kCPU, at::kFloat).contiguous(); }

}  // namespace

Tensor CompiledDenoiser::denoise(const Tensor& x_t, const Tensor& sigma,
                                 const diffusion::Condition& condition) const {
    const std::int64_t classes = model_.network.label_dim,
                       label_elements = classes * std::max<std::int64_t>(1, model_.network.tokens);
    diffusion::check_condition(model_.network, condition);
    if (condition.augment.defined())
        core::fail("augment labels are supported by LibTorch only; use --engine torch");
    const diffusion::Preconditioning with = model_.noise.preconditioning(float_on_cpu(sigma));
    const Tensor x = float_on_cpu(x_t),
                 labels = classes > 0 ? float_on_cpu(condition.labels) : Tensor(),
                 out = at::empty_like(x);
    const std::int64_t elements = x.numel() / std::max<std::int64_t>(1, x.size(0));
    const auto values = [](const Tensor& tensor) { return tensor.const_data_ptr<float>(); };
    network_->for_each_batch(
        x.size(0), [&](CompiledNetwork::Batch& batch, std::int64_t first, std::int64_t count) {
            const float* x_batch = values(x) + first * elements;
            for (std::int64_t i = 0; i < count; ++i)
                scaled(x_batch + i * elements, values(with.c_in)[first + i], elements,
                       batch.input(0) + i * elements);
            std::copy_n(values(with.c_noise) + first, count, batch.input(1));
            if (classes > 0)
                std::copy_n(values(labels) + first * label_elements, count * label_elements,
                            batch.input(2));
            const float* raw = batch.infer();
            float* to = out.mutable_data_ptr<float>() + first * elements;
            for (std::int64_t i = 0; i < count; ++i) {
                combined(values(with.c_skip)[first + i], x_batch + i * elements,
                         values(with.c_out)[first + i], raw + i * elements, elements,
                         to + i * elements);
            }
        });
    return out;
}

CompiledOneStep::CompiledOneStep(const models::Model& model, std::vector<std::int64_t> classes,
                                 std::unique_ptr<CompiledNetwork> network)
    : model_(model), classes_(std::move(classes)), network_(std::move(network)) {
    const OneStepFactors factors = one_step_factors(model);
    z_in_ = static_cast<float>(factors.in);
    z_skip_ = static_cast<float>(factors.skip);
    c_out_ = static_cast<float>(factors.out);
}

std::int32_t CompiledOneStep::row_of(std::int64_t class_id) const {
    const auto place = std::ranges::lower_bound(classes_, class_id);
    if (place == classes_.end() || *place != class_id)
        throw core::UsageError(fmt::format(
            "class {} is not among the classes that this model was opened for", class_id));
    return static_cast<std::int32_t>(place - classes_.begin());
}

Tensor CompiledOneStep::draw(const Tensor& z, std::span<const std::int64_t> classes) const {
    const Tensor noise = float_on_cpu(z), out = at::empty_like(noise);
    const std::int64_t elements = noise.numel() / std::max<std::int64_t>(1, noise.size(0));
    network_->for_each_batch(
        noise.size(0), [&](CompiledNetwork::Batch& batch, std::int64_t first, std::int64_t count) {
            const float* x_batch = noise.const_data_ptr<float>() + first * elements;
            scaled(x_batch, z_in_, count * elements, batch.input(0));
            if (model_.network.label_dim > 0) {
                std::int32_t* rows = batch.rows();
                for (std::int64_t i = 0; i < count; ++i)
                    rows[i] = row_of(classes[static_cast<std::size_t>(first + i)]);
            }
            const float* raw = batch.infer();
            combined(z_skip_, x_batch, c_out_, raw, count * elements,
                     out.mutable_data_ptr<float>() + first * elements);
        });
    return out;
}

}  // namespace atelier::inference
