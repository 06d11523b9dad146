#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "atelier/backends/torch/parameters.h"
#include "atelier/backends/torch/torch.h"
#include "atelier/core/random_streams.h"
#include "core/test_folder.h"

/// Shared by tests that compute: repeatable tensors and the distance of two tensors.
namespace atelier::backends {

/// Standard normal float32 values that depend only on `name`.
inline Tensor normal(std::vector<std::int64_t> shape, const std::string& name) {
    Tensor values = at::empty(shape, at::kFloat);
    core::RandomStream stream(7, name);
    stream.fill_normal(
        {values.mutable_data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    return values;
}

/// Norm of the difference over the norm of `expected`, in float64.
inline double relative_distance(const Tensor& actual, const Tensor& expected) {
    EXPECT_EQ(actual.sizes(), expected.sizes());
    const Tensor exact = expected.detach().to(at::kDouble);
    return ((actual.detach().to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

/// Gradients of `value`, a scalar, with respect to `on`; `twice` records a graph for second-order
/// gradients.
inline std::vector<Tensor> gradients_of(const Tensor& value, const std::vector<Tensor>& on,
                                        bool twice = false) {
    return torch::autograd::grad({value}, on, {}, /*retain_graph=*/std::nullopt,
                                 /*create_graph=*/twice);
}

/// Initialised parameters for `specs`; layers that are initialised to zero or nearly so are filled
/// too, so that every layer has an effect.
inline Parameters filled(std::span<const graph::ParameterSpec> specs, std::uint64_t seed = 1) {
    std::vector<graph::ParameterSpec> all(specs.begin(), specs.end());
    for (graph::ParameterSpec& spec : all) {
        const bool vector = spec.shape.size() == 1;
        const bool near_zero =
            spec.init.gain < 1e-3 || (vector && spec.init.kind == graph::Init::Kind::xavier);
        if (near_zero)
            spec.init = {graph::Init::Kind::uniform,
                         vector ? 0.25 * std::sqrt(static_cast<double>(spec.fan_in)) : 1.0};
    }
    return initialise(all, seed);
}

using core::error_of;
using core::expect_contains;

}  // namespace atelier::backends
