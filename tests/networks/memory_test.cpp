#include "networks/network_fixtures.h"

namespace atelier::networks {
namespace {

const nlohmann::json& unet() {
    static const nlohmann::json config{{"architecture", "adm_unet"},
                                       {"resolution", 16},
                                       {"channels", 3},
                                       {"classes", 4},
                                       {"model_channels", 64},
                                       {"channel_mult", {1, 2}},
                                       {"num_blocks", 1},
                                       {"attention_resolutions", {8}}};
    return config;
}

std::vector<Tensor> gradients(const Network& network, const backends::Parameters& parameters,
                              bool recompute, std::optional<at::ScalarType> type = {}) {
    TensorInputs inputs = inputs_for(network, 3);
    Tensor x = inputs.x.clone().set_requires_grad(true);
    inputs.x = x;
    Tensor value;
    {
        const backends::LowPrecision precision(at::kCPU, type);
        backends::TorchOps backend(parameters, "", recompute);
        value = forward(network, backend, inputs).raw.to(at::kFloat).square().mean();
    }
    std::vector<Tensor> inputs_with_gradients = parameters.list();
    inputs_with_gradients.push_back(x);
    return torch::autograd::grad({value}, inputs_with_gradients);
}

TEST(ActivationCheckpointing, changes_gradients_only_by_rounding) {
    const Network network = network_of(unet());
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    parameters.require_gradients(true);
    for (const auto type : {std::optional<at::ScalarType>(), std::optional(at::kBFloat16)}) {
        const auto plain = gradients(network, parameters, false, type),
                   again = gradients(network, parameters, true, type);
        for (std::size_t i = 0; i < plain.size(); ++i) {
            const double scale = plain[i].norm().item<double>();
            ASSERT_GT(scale, 0) << i;
            EXPECT_LT((plain[i] - again[i]).norm().item<double>() / scale, type ? 2e-2 : 1e-5) << i;
        }
    }
}

TEST(ActivationCheckpointing, retains_only_the_inputs_of_blocks) {
    // Counts the tensors that autograd retains: those of the graph behind an output.
    const Network network = network_of(unet());
    const double all = trace(network, {.backward = true}).memory.retained,
                 inputs = trace(network, {.backward = true, .recompute = true}).memory.retained;
    const double inference = trace(network).memory.peak;
    EXPECT_LT(inputs, 0.4 * all);
    EXPECT_LT(inference, all);
    EXPECT_GT(trace(network, {.backward = true, .recompute = true}).memory.block, 0);
}

TEST(ActivationCheckpointing, double_backward_is_rejected_with_a_message) {
    const Network network = network_of(unet());
    const backends::Parameters parameters = backends::filled(trace(network).parameters);
    parameters.require_gradients(true);
    backends::TorchOps backend(parameters, "", true);
    TensorInputs inputs = inputs_for(network, 2);
    const Tensor x = inputs.x.clone().set_requires_grad(true);
    inputs.x = x;
    const Tensor value = forward(network, backend, inputs).raw.sum();
    EXPECT_THROW(torch::autograd::grad({value}, {x}, {}, std::nullopt, /*create_graph=*/true),
                 std::exception);
}

TEST(MemoryEstimate, grows_with_width_and_halves_with_precision) {
    nlohmann::json wide = unet();
    wide["model_channels"] = 128;
    const double narrow = trace(network_of(unet()), {.backward = true}).memory.retained;
    EXPECT_NEAR(trace(network_of(wide), {.backward = true}).memory.retained / narrow, 2.0, 0.1);
    EXPECT_NEAR(
        trace(network_of(unet()), {.backward = true, .element_size = 2}).memory.retained / narrow,
        0.5, 0.02);
}

TEST(MemoryEstimate, of_a_chain_matches_a_count_by_hand) {
    // x (outside) -> conv a -> norm b (retains a) -> conv c (retains b): a, b and c have 2*4*4*4
    // elements each.
    const graph::Graph chain =
        graph::record({{2, 3, 4, 4}}, [](graph::Builder& ops, std::span<const graph::Value> in) {
            const graph::Value a = ops.conv2d(in[0], "a", {.out_channels = 4});
            const graph::Value b = ops.group_norm(a, "b", {.groups = 2});
            return std::vector{ops.conv2d(b, "c", {.out_channels = 4})};
        });
    constexpr double each = 2 * 4 * 4 * 4 * 4;
    const graph::MemoryEstimate training = graph::memory(chain, {.backward = true}),
                                inference = graph::memory(chain, {});
    EXPECT_EQ(training.peak, 3 * each);
    EXPECT_EQ(training.retained, 2 * each)
        << "the result is freed, what the backward pass reads is retained";
    EXPECT_EQ(inference.retained, 0);
    EXPECT_EQ(inference.peak, 2 * each) << "a is freed before c is computed";
}

}  // namespace
}  // namespace atelier::networks
