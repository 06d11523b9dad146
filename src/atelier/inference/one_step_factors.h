#pragma once

#include "atelier/models/model_directory.h"

namespace atelier::inference {

/// The factors of one step from the highest noise level, for standard normal z: the network's input
/// is in z, and the sample is skip z + out F.
struct OneStepFactors {
    double in, skip, out;
};

inline OneStepFactors one_step_factors(const models::Model& model) {
    const auto with =
        model.noise.preconditioning(at::full({1}, model.noise.sigma_max, at::kDouble));
    const double start = model.noise.initial_noise_scale();
    return {start * with.c_in.item<double>(), start * with.c_skip.item<double>(),
            with.c_out.item<double>()};
}

/// The inputs of a network that is compiled for its highest noise level only: `x` and constants, of
/// which the labels have one row for each of `classes`.
template <class Value>
networks::InputsOf<Value> one_step_inputs(const models::Model& model,
                                          std::span<const std::int64_t> classes, Value x) {
    const Tensor level =
        model.noise.preconditioning(at::full({1}, model.noise.sigma_max, at::kFloat)).c_noise;
    networks::InputsOf<Value> inputs{std::move(x), level};
    if (model.network.label_dim > 0)
        inputs.labels = diffusion::one_hot(classes, model.network.label_dim).labels;
    return inputs;
}

}  // namespace atelier::inference
