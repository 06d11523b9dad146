#pragma once

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/networks/network.h"
#include "backends/tensors.h"

namespace atelier::networks {

inline Network network_of(const nlohmann::json& config) {
    return make_network(core::JsonObject(config, "config.json"));
}

inline std::string config_error(const nlohmann::json& config) {
    return backends::error_of([&] { network_of(config); });
}

using TensorInputs = InputsOf<Tensor>;
struct TensorOutputs {
    Tensor raw, bottleneck;
};

inline std::vector<Tensor> computed(const Network& network, const backends::TorchOps& backend,
                                    const TensorInputs& inputs, TraceScope scope) {
    InputsOf<graph::Shape> shapes{inputs.x.sizes().vec(), inputs.c_noise.sizes().vec()};
    if (inputs.labels) shapes.labels = inputs.labels->sizes().vec();
    if (inputs.augment) shapes.augment = inputs.augment->sizes().vec();
    return backend.run(*graph_of(network, shapes, scope), inputs.list());
}

inline TensorOutputs forward(const Network& network, const backends::TorchOps& backend,
                             const TensorInputs& inputs) {
    const auto outputs = computed(network, backend, inputs, TraceScope::full);
    return {outputs[0], outputs[1]};
}

/// Inputs for a batch of `n`; one-hot labels where the network is conditional.
inline TensorInputs inputs_for(const Network& network, std::int64_t n) {
    std::vector<std::int64_t> shape{n};
    shape.insert(shape.end(), network.data_shape.begin(), network.data_shape.end());
    TensorInputs inputs{backends::normal(shape, "x"), backends::normal({n}, "c_noise")};
    if (network.label_dim > 0)
        inputs.labels =
            at::one_hot(at::arange(n) % network.label_dim, network.label_dim).to(at::kFloat);
    return inputs;
}

inline void expect_encode_is_the_bottleneck_of_forward(const Network& network) {
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    backends::TorchOps backend(parameters);
    const TensorInputs inputs = inputs_for(network, 3);
    const TensorOutputs out = forward(network, backend, inputs);
    const Tensor encoded = computed(network, backend, inputs, TraceScope::encoder_only)[0];
    EXPECT_TRUE(encoded.equal(out.bottleneck));
    EXPECT_EQ(out.raw.sizes(), inputs.x.sizes());
    graph::Shape one = encoded.sizes().vec();
    one[0] = 1;
    EXPECT_EQ(one, bottleneck_shape(network));
}

/// Expects that changing the labels, c_noise or x of sample 0 changes its output, and only its
/// output.
inline void expect_every_input_to_matter_to_its_own_sample(const Network& network) {
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    backends::TorchOps backend(parameters);
    const auto run = [&](const TensorInputs& inputs) {
        return forward(network, backend, inputs).raw;
    };
    const TensorInputs inputs = inputs_for(network, 2);
    const Tensor before = run(inputs);
    const auto expect_changed = [&](const TensorInputs& changed, const char* what) {
        const Tensor after = run(changed);
        EXPECT_GT(backends::relative_distance(after[0], before[0]), 1e-3) << what;
        EXPECT_LT(backends::relative_distance(after[1], before[1]), 1e-5) << what;
    };
    const auto with_first = [](const Tensor& value, const Tensor& first) {
        return at::cat({first.unsqueeze(0), value.narrow(0, 1, 1)});
    };
    expect_changed({with_first(inputs.x, inputs.x[0] + 1), inputs.c_noise, inputs.labels}, "x");
    expect_changed({inputs.x, with_first(inputs.c_noise, inputs.c_noise[0] + 0.5), inputs.labels},
                   "c_noise");
    if (inputs.labels) {
        expect_changed({inputs.x, inputs.c_noise, with_first(*inputs.labels, (*inputs.labels)[1])},
                       "labels");
    }
}

inline std::int64_t parameter_count(const std::vector<graph::ParameterSpec>& specs) {
    std::int64_t total = 0;
    for (const auto& spec : specs) total += graph::elements(spec.shape);
    return total;
}

}  // namespace atelier::networks
