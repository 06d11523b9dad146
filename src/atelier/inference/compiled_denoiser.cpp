#include "atelier/inference/compiled_denoiser.h"

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

Tensor CompiledDenoiser::denoise(const Tensor& x_t, const Tensor& sigma, const diffusion::Condition& condition) const {
    const std::int64_t classes = model_.network.classes, label = classes * std::max<std::int64_t>(1, model_.network.tokens);
    diffusion::check_condition(model_.network, condition);
    if (condition.augment.defined()) core::fail("augment labels are read by LibTorch alone; take --engine torch");
    const diffusion::Preconditioning with = diffusion::precondition(float_on_cpu(sigma), model_.scheme);
    const Tensor x = float_on_cpu(x_t), labels = classes > 0 ? float_on_cpu(condition.labels) : Tensor(), out = at::empty_like(x);
    const std::int64_t each = x.numel() / std::max<std::int64_t>(1, x.size(0));
    const auto numbers = [](const Tensor& tensor) { return tensor.const_data_ptr<float>(); };
    network_->in_pieces(x.size(0), [&](CompiledNetwork::Piece& batch, std::int64_t first, std::int64_t count) {
        const float* piece = numbers(x) + first * each;
        for (std::int64_t i = 0; i < count; ++i) scaled(piece + i * each, numbers(with.c_in)[first + i], each, batch.input(0) + i * each);
        std::copy_n(numbers(with.c_noise) + first, count, batch.input(1));
        if (classes > 0) std::copy_n(numbers(labels) + first * label, count * label, batch.input(2));
        const float* raw = batch.computed();
        float* to = out.mutable_data_ptr<float>() + first * each;
        for (std::int64_t i = 0; i < count; ++i) {
            combined(numbers(with.c_skip)[first + i], piece + i * each, numbers(with.c_out)[first + i], raw + i * each, each, to + i * each);
        }
    });
    return out;
}

CompiledOneStep::CompiledOneStep(const models::Model& model, std::vector<std::int64_t> classes, std::unique_ptr<CompiledNetwork> network)
    : model_(model), classes_(std::move(classes)), network_(std::move(network)) {
    const OneStepFactors factors = one_step_factors(model);
    z_in_ = static_cast<float>(factors.in);
    z_skip_ = static_cast<float>(factors.skip);
    c_out_ = static_cast<float>(factors.out);
}

std::int32_t CompiledOneStep::row_of(std::int64_t class_id) const {
    const auto place = std::ranges::lower_bound(classes_, class_id);
    if (place == classes_.end() || *place != class_id) throw core::UsageError(fmt::format("class {} is none of those that this model was opened for", class_id));
    return static_cast<std::int32_t>(place - classes_.begin());
}

Tensor CompiledOneStep::draw(const Tensor& z, std::span<const std::int64_t> classes) const {
    const Tensor noise = float_on_cpu(z), out = at::empty_like(noise);
    const std::int64_t each = noise.numel() / std::max<std::int64_t>(1, noise.size(0));
    network_->in_pieces(noise.size(0), [&](CompiledNetwork::Piece& batch, std::int64_t first, std::int64_t count) {
        const float* piece = noise.const_data_ptr<float>() + first * each;
        scaled(piece, z_in_, count * each, batch.input(0));
        if (model_.network.classes > 0) {
            std::int32_t* rows = batch.rows();
            for (std::int64_t i = 0; i < count; ++i) rows[i] = row_of(classes[static_cast<std::size_t>(first + i)]);
        }
        const float* raw = batch.computed();
        combined(z_skip_, piece, c_out_, raw, count * each, out.mutable_data_ptr<float>() + first * each);
    });
    return out;
}

}  // namespace atelier::inference
