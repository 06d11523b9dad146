#pragma once

#include "atelier/ops/parameters.h"

/// Convolutions in int8, as they lie among parameters: "a.weight" is int8 [O,...], its channel c in steps of "a.weight_scale" [O], and what
/// the layer is given is rounded to steps of a 127th of "a.input_range" (one number) and held within it. Symmetric: 0 is 0.
namespace atelier::ops {

inline constexpr float largest_step = 127;

bool is_quantised(const Parameters& parameters, const std::string& layer);

/// Throws core::Error when the layer is not quantised.
float input_range(const Parameters& parameters, const std::string& layer);

/// Replaces a layer's float32 weight by int8 steps: each channel's largest weight is 127 steps. Its inputs will be held within `input_range` > 0.
void quantise(Parameters& parameters, const std::string& layer, float input_range);

/// The same parameters with all weights float32, and nothing that says of int8.
Parameters dequantised(const Parameters& parameters);

/// The network's own tensors among `parameters`, whatever their type. Throws core::Error, beginning with `where`, on an int8 weight whose scales or
/// range are missing, of another shape, or not positive.
Parameters without_steps(const Parameters& parameters, const std::string& where);

/// `x` rounded to a 127th of `range` and held within it.
Tensor rounded_to_steps(const Tensor& x, double range);

}  // namespace atelier::ops
