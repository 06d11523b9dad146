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

}  // namespace atelier::inference
