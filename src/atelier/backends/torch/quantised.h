#pragma once

#include "atelier/backends/torch/parameters.h"

/// Convolutions in int8, as stored among parameters: "a.weight" is int8 [O,...], with one scale per
/// channel in "a.weight_scale" [O]; the layer's input is rounded to multiples of a 127th of
/// "a.input_range" (a scalar) and clamped to it. Symmetric: 0 is 0.
namespace atelier::backends {

inline constexpr float int8_max = 127;

bool is_quantised(const Parameters& parameters, const std::string& layer);

/// Throws core::Error when the layer is not quantised.
float input_range(const Parameters& parameters, const std::string& layer);

/// Replaces a layer's float32 weight by int8: each channel's largest absolute weight becomes 127.
/// Inputs will be clamped to +-`input_range` > 0.
void quantise(Parameters& parameters, const std::string& layer, float input_range);

/// The same parameters with all weights in float32 and without scales and ranges.
Parameters dequantised(const Parameters& parameters);

/// The network's own tensors among `parameters`, whatever their type. Throws core::Error, beginning
/// with `where`, on an int8 weight whose scales or range are missing, of the wrong shape, or not
/// positive.
Parameters without_quantisation(const Parameters& parameters, const std::string& where);

/// `x` rounded to multiples of range/127 and clamped to +-`range`.
Tensor fake_quantised(const Tensor& x, double range);

}  // namespace atelier::backends
