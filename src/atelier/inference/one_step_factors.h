#pragma once

#include "atelier/models/model_directory.h"

namespace atelier::inference {

/// One step from the highest noise level, of standard normal z: the network is given in z, and the sample is skip z + out F.
struct OneStepFactors {
    double in, skip, out;
};

inline OneStepFactors one_step_factors(const models::Model& model) {
    const auto with = diffusion::precondition(at::full({1}, model.range.sigma_max, at::kDouble), model.scheme);
    const double start = model.range.start();
    return {start * with.c_in.item<double>(), start * with.c_skip.item<double>(), with.c_out.item<double>()};
}

/// What a network that is spoken for its highest noise level alone is given beside `x`: known numbers, of which the labels are a row for each of `classes`.
inline networks::Inputs one_step_inputs(const models::Model& model, std::span<const std::int64_t> classes, ops::Value x) {
    const Tensor level = diffusion::precondition(at::full({1}, model.range.sigma_max, at::kFloat), model.scheme).c_noise;
    networks::Inputs inputs{std::move(x), level, std::nullopt};
    if (model.network.classes > 0) inputs.labels = diffusion::one_hot(classes, model.network.classes).labels;
    return inputs;
}

}  // namespace atelier::inference
