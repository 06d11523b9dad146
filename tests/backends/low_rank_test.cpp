#include "atelier/backends/torch/low_rank.h"

#include "atelier/backends/torch/recomputed.h"
#include "atelier/backends/torch/torch_ops.h"
#include "backends/tensors.h"

namespace atelier::backends {

namespace {

const std::vector<graph::ParameterSpec> specs{{"conv.weight", {6, 4, 3, 3}, {}, 36},
                                              {"conv.bias", {6}, {}, 36},
                                              {"linear.weight", {5, 6}, {}, 6},
                                              {"linear.bias", {5}, {}, 6},
                                              {"norm.weight", {6}, graph::zeros, 1, 1.0}};

/// A convolution, the mean over pixels, and a linear layer.
graph::Value network(graph::Builder& ops, std::span<const graph::Value> in) {
    return ops.linear(
        ops.global_average(ops.conv2d(in[0], "conv", {.out_channels = 6, .stride = 2})), "linear",
        {.out_features = 5});
}

graph::Graph recorded() {
    return graph::record({{1, 4, 8, 8}}, [](graph::Builder& ops, std::span<const graph::Value> in) {
        return std::vector{network(ops, in)};
    });
}

std::shared_ptr<const Parameters> base() {
    return std::make_shared<const Parameters>(initialise(specs, 1));
}

/// Deltas that change something.
Parameters deltas(std::int64_t rank = 2) {
    Parameters initial = initialise(low_rank_specs(specs, rank), 2);
    initial.set_base(base());
    for (const auto& [name, tensor] : initial.tensors())
        tensor.add_(0.1 * at::ones_like(tensor).cumsum(0) / static_cast<double>(tensor.numel()));
    return initial;
}

Tensor answer(const Parameters& parameters, const Tensor& x) {
    return TorchOps(parameters).run(recorded(), std::span(&x, 1))[0];
}

Tensor images() { return at::linspace(-1, 1, 3 * 4 * 8 * 8).view({3, 4, 8, 8}).sin(); }

}  // namespace

TEST(LowRank, every_matrix_and_filter_has_two_deltas_and_nothing_else_has) {
    std::map<std::string, graph::Shape> shapes;
    for (const graph::ParameterSpec& spec : low_rank_specs(specs, 2))
        shapes[spec.name] = spec.shape;
    EXPECT_EQ(shapes, (std::map<std::string, graph::Shape>{{"conv.lora_down.weight", {2, 4, 3, 3}},
                                                           {"conv.lora_up.weight", {6, 2, 1, 1}},
                                                           {"linear.lora_down.weight", {2, 6}},
                                                           {"linear.lora_up.weight", {5, 2}}}));
    for (const graph::ParameterSpec& spec : low_rank_specs(specs, 1000))
        EXPECT_LE(spec.shape[0], 6) << "no more than a matrix's own rank";
}

TEST(LowRank, initial_deltas_change_nothing) {
    Parameters initial = initialise(low_rank_specs(specs, 2), 2);
    initial.set_base(base());
    EXPECT_TRUE(answer(initial, images()).equal(answer(*base(), images())));
    EXPECT_EQ(initial.count(), 2 * 36 + 6 * 2 + 2 * 6 + 5 * 2);
}

TEST(LowRank, a_layer_computes_with_its_weight_and_the_product_of_its_deltas) {
    const Parameters low = deltas();
    const Parameters plain = merged(low);
    EXPECT_FALSE(plain.base());
    EXPECT_EQ(plain.tensors().size(), specs.size());
    EXPECT_LT(relative_distance(answer(low, images()), answer(plain, images())), 1e-5);
    EXPECT_GT(relative_distance(answer(low, images()), answer(*base(), images())), 1e-3);
    // Deltas of full rank can be any change of the weights: here, the one that takes them to zero.
    Parameters whole = deltas(5);
    const Tensor up = at::eye(5);
    whole.set("linear.lora_up.weight", up);
    whole.set("linear.lora_down.weight", -whole.at("linear.weight"));
    EXPECT_LT(merged(whole).at("linear.weight").abs().max().item<double>(), 1e-6);
}

TEST(LowRank, deltas_learn_and_the_base_does_not) {
    const Parameters low = deltas();
    low.require_gradients(true);
    const auto gradients =
        torch::autograd::grad({answer(low, images()).square().sum()}, low.list());
    for (const Tensor& gradient : gradients) EXPECT_GT(gradient.abs().max().item<double>(), 0);
    for (const auto& [name, tensor] : low.base()->tensors())
        EXPECT_FALSE(tensor.requires_grad()) << name;
}

TEST(LowRank, gradients_are_the_same_where_a_block_is_recomputed) {
    const Parameters low = deltas();
    low.require_gradients(true);
    const Tensor in = images();
    const Tensor again =
        recomputed({std::make_shared<const graph::Graph>(recorded())}, std::span(&in, 1), low, "");
    const auto gradients = torch::autograd::grad({again.square().sum()}, low.list()),
               expected = torch::autograd::grad({answer(low, images()).square().sum()}, low.list());
    for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_LT(relative_distance(gradients[i], expected[i]), 1e-5);
}

TEST(LowRank, copies_have_the_same_base) {
    const Parameters low = deltas();
    EXPECT_EQ(low.clone().base(), low.base());
    EXPECT_EQ(low.to(at::kCPU).base(), low.base());
    EXPECT_TRUE(low.contains("norm.weight"));
    EXPECT_FALSE(error_of([&] { low.at("other.weight"); }).empty());
}

}  // namespace atelier::backends
