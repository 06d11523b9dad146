#include "networks/network_fixtures.h"

namespace atelier::networks {
namespace {

const nlohmann::json& unet() {
    static const nlohmann::json config{{"architecture", "adm_unet"}, {"resolution", 16}, {"channels", 3}, {"classes", 4}, {"model_channels", 64},
                                       {"channel_mult", {1, 2}}, {"num_blocks", 1}, {"attention_resolutions", {8}}};
    return config;
}

std::vector<Tensor> gradients(const Network& network, const ops::Parameters& parameters, bool recompute, std::optional<at::ScalarType> type = {}) {
    Inputs inputs = inputs_for(network, 3);
    Tensor x = ops::tensor_of(inputs.x).clone().set_requires_grad(true);
    inputs.x = x;
    Tensor value;
    {
        const ops::LowPrecision precision(at::kCPU, type);
        ops::TorchOps speaker(parameters, "", recompute);
        value = ops::tensor_of(network.forward(speaker, inputs).raw).to(at::kFloat).square().mean();
    }
    std::vector<Tensor> wanted = parameters.list();
    wanted.push_back(x);
    return torch::autograd::grad({value}, wanted);
}

TEST(ActivationCheckpointing, changes_no_gradient_but_by_rounding) {
    const Network network = network_of(unet());
    const ops::Parameters parameters = ops::filled(trace(network).parameters);
    parameters.require_gradients(true);
    for (const auto type : {std::optional<at::ScalarType>(), std::optional(at::kBFloat16)}) {
        const auto plain = gradients(network, parameters, false, type), again = gradients(network, parameters, true, type);
        for (std::size_t i = 0; i < plain.size(); ++i) {
            const double scale = plain[i].norm().item<double>();
            ASSERT_GT(scale, 0) << i;
            EXPECT_LT((plain[i] - again[i]).norm().item<double>() / scale, type ? 2e-2 : 1e-5) << i;
        }
    }
}

TEST(ActivationCheckpointing, keeps_the_inputs_of_blocks_alone) {
    // Which tensors autograd still holds: those of the graph behind an output.
    const Network network = network_of(unet());
    const double all = trace(network, {.backward = true}).memory().held, inputs = trace(network, {.backward = true, .recompute = true}).memory().held;
    const double alone = trace(network).memory().most;
    EXPECT_LT(inputs, 0.4 * all);
    EXPECT_LT(alone, all);
    EXPECT_GT(trace(network, {.backward = true, .recompute = true}).memory().block, 0);
}

TEST(ActivationCheckpointing, a_slope_of_a_slope_is_refused_in_words) {
    const Network network = network_of(unet());
    const ops::Parameters parameters = ops::filled(trace(network).parameters);
    parameters.require_gradients(true);
    ops::TorchOps speaker(parameters, "", true);
    Inputs inputs = inputs_for(network, 2);
    const Tensor x = ops::tensor_of(inputs.x).clone().set_requires_grad(true);
    inputs.x = x;
    const Tensor value = ops::tensor_of(network.forward(speaker, inputs).raw).sum();
    EXPECT_THROW(torch::autograd::grad({value}, {x}, {}, std::nullopt, /*create_graph=*/true), std::exception);
}

TEST(Memory, grows_with_width_and_halves_with_precision) {
    nlohmann::json wide = unet();
    wide["model_channels"] = 128;
    const double narrow = trace(network_of(unet()), {.backward = true}).memory().held;
    EXPECT_NEAR(trace(network_of(wide), {.backward = true}).memory().held / narrow, 2.0, 0.1);
    EXPECT_NEAR(trace(network_of(unet()), {.backward = true, .width = 2}).memory().held / narrow, 0.5, 0.02);
}

TEST(Memory, of_a_chain_is_counted_by_hand) {
    // x (outside) -> conv a -> norm b (keeps a) -> conv c (keeps b): a, b and c are 2*4*4*4 numbers each.
    ops::ShapeOps kept({.backward = true}), alone;
    const auto chain = [](ops::ShapeOps& ops) {
        const ops::Value a = ops.conv2d(ops::Shape{2, 3, 4, 4}, "a", {.out_channels = 4});
        const ops::Value b = ops.group_norm(a, "b", {.groups = 2});
        return ops.conv2d(b, "c", {.out_channels = 4});
    };
    constexpr double each = 2 * 4 * 4 * 4 * 4;
    {
        const ops::Value out = chain(kept);
        EXPECT_EQ(kept.memory().held, 3 * each);
    }
    EXPECT_EQ(kept.memory().held, 2 * each) << "the result is let go, what the backward pass reads stays";
    chain(alone);
    EXPECT_EQ(alone.memory().held, 0);
    EXPECT_EQ(alone.memory().most, 3 * each);
}

}  // namespace
}  // namespace atelier::networks
