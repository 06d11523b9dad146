#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "atelier/core/random_streams.h"
#include "atelier/ops/parameters.h"
#include "atelier/ops/torch.h"
#include "core/test_folder.h"

/// What the tests of the rooms that compute share: repeatable numbers and how far two tensors lie apart.
namespace atelier::ops {

/// Standard normal float32 numbers that depend on the name alone.
inline Tensor normal(std::vector<std::int64_t> shape, const std::string& name) {
    Tensor numbers = at::empty(shape, at::kFloat);
    core::RandomStream stream(7, name);
    stream.fill_normal({numbers.mutable_data_ptr<float>(), static_cast<std::size_t>(numbers.numel())});
    return numbers;
}

/// Norm of the difference over the norm of what was expected, in float64.
inline double relative_distance(const Tensor& actual, const Tensor& expected) {
    EXPECT_EQ(actual.sizes(), expected.sizes());
    const Tensor wanted = expected.detach().to(at::kDouble);
    return ((actual.detach().to(at::kDouble) - wanted).norm() / wanted.norm()).item<double>();
}

/// Slopes of `value`, a scalar, on `on`.
inline std::vector<Tensor> slopes_of(const Tensor& value, const std::vector<Tensor>& on, bool twice = false) {
    return torch::autograd::grad({value}, on, {}, /*retain_graph=*/std::nullopt, /*create_graph=*/twice);
}

/// Fresh parameters for `specs`; layers that start at zero or nearly so are filled too, so that every layer has something to say.
inline Parameters filled(std::span<const ParameterSpec> specs, std::uint64_t seed = 1) {
    std::vector<ParameterSpec> all(specs.begin(), specs.end());
    for (ParameterSpec& spec : all) {
        const bool vector = spec.shape.size() == 1;
        const bool silent = spec.init.gain < 1e-3 || (vector && spec.init.kind == Init::Kind::xavier);
        if (silent) spec.init = {Init::Kind::uniform, vector ? 0.25 * std::sqrt(static_cast<double>(spec.fan_in)) : 1.0};
    }
    return initialise(all, seed);
}

using core::error_of;
using core::expect_contains;

}  // namespace atelier::ops
