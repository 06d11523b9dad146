#include "atelier/graph/builder.h"

#include <gtest/gtest.h>

#include "core/test_folder.h"
#include "graph/every_op.h"

namespace atelier::graph {

using core::error_of;
using core::expect_contains;

TEST(Builder, every_op_is_recorded_with_its_shape) {
    const Graph graph = record_every_op();
    std::set<std::string> seen;
    const auto look = [&](const auto& self, const Graph& inside) -> void {
        for (const Node& node : inside.nodes) {
            seen.insert(name_of(node.op));
            if (const auto* block = std::get_if<Block>(&node.op)) self(self, *block->body);
        }
    };
    look(look, graph);
    EXPECT_EQ(seen, names_of_all_ops());
    EXPECT_EQ(graph.shape(graph.outputs[0]), (Shape{2, 3}));
    EXPECT_EQ(graph.shape(graph.outputs[1]), (Shape{2, 4, 8, 4}));
}

TEST(Builder, no_two_ops_have_one_name) {
    EXPECT_EQ(names_of_all_ops().size(), std::variant_size_v<Op>);
    EXPECT_STREQ(name_of(TokenAttention{.heads = 1}), "token_attention");
}

TEST(Builder, parameters_are_listed_in_the_order_in_which_they_are_read_blocks_included) {
    const Graph graph = record({{1, 4}}, [](Builder& ops, std::span<const Value> in) {
        Value x = ops.linear(in[0], "first", {.out_features = 8});
        x = ops.block({&x, 1}, [](Builder& inner, std::span<const Value> at) {
            return inner.layer_norm(
                inner.linear(at[0], "inside", {.out_features = 6, .bias = false}), "norm", 1e-5);
        });
        return std::vector{ops.linear(x, "last", {.out_features = 2})};
    });
    std::vector<std::string> names;
    for (const ParameterSpec& spec : graph.parameters) names.push_back(spec.name);
    EXPECT_EQ(names,
              (std::vector<std::string>{"first.weight", "first.bias", "inside.weight",
                                        "norm.weight", "norm.bias", "last.weight", "last.bias"}));
    EXPECT_EQ(graph.parameters[2].shape, (Shape{6, 8}));
    EXPECT_EQ(graph.parameters[3].base, 1.0);
}

TEST(Builder, a_value_is_dropped_after_the_last_node_that_reads_it) {
    const Graph graph = record({{1, 4}}, [](Builder& ops, std::span<const Value> in) {
        const Value a = ops.silu(in[0]), unread = ops.silu(in[0]), b = ops.add(a, in[0]);
        static_cast<void>(unread);
        return std::vector{ops.add(b, a), b};
    });
    // 0 the input, 1 a, 2 unread, 3 b, 4 the sum.
    EXPECT_TRUE(graph.nodes[1].last_reads.empty());
    EXPECT_EQ(graph.nodes[2].last_reads, std::vector{Value{2}});
    EXPECT_EQ(graph.nodes[3].last_reads, std::vector{Value{0}});
    EXPECT_EQ(graph.nodes[4].last_reads, std::vector{Value{1}}) << "outputs are kept";
}

TEST(Builder, names_the_layer_that_does_not_fit) {
    const auto expect_error = [](const std::vector<Shape>& inputs, const auto& add,
                                 const std::string& name, const std::string& shape) {
        const std::string message = error_of([&] {
            record(inputs, [&](Builder& ops, std::span<const Value> in) {
                return std::vector<Value>{add(ops, in)};
            });
        });
        expect_contains(message, "\"" + name + "\"");
        expect_contains(message, shape);
    };
    using In = std::span<const Value>;
    expect_error(
        {{2, 3}},
        [](Builder& ops, In in) { return ops.conv2d(in[0], "enc.conv", {.out_channels = 8}); },
        "enc.conv", "[2,3]");
    expect_error(
        {{2, 3, 2, 2}},
        [](Builder& ops, In in) {
            return ops.conv2d(in[0], "enc.conv", {.out_channels = 8, .kernel = 4, .padding = 0});
        },
        "enc.conv", "[2,3,2,2]");
    expect_error(
        {{2, 3, 4, 4}},
        [](Builder& ops, In in) { return ops.linear(in[0], "map", {.out_features = 8}); }, "map",
        "[2,3,4,4]");
    expect_error(
        {{2, 6, 4, 4}},
        [](Builder& ops, In in) { return ops.group_norm(in[0], "norm1", {.groups = 4}); }, "norm1",
        "[2,6,4,4]");
    expect_error(
        {{2, 6, 4, 4}, {2, 6}},
        [](Builder& ops, In in) { return ops.group_norm(in[0], "norm1", {.groups = 2}, in[1]); },
        "norm1", "[2,6]");
    expect_error(
        {{2, 6, 4, 4}}, [](Builder& ops, In in) { return ops.layer_norm(in[0], "norm", 1e-5); },
        "norm", "[2,6,4,4]");
    expect_error(
        {{2, 10, 4, 4}}, [](Builder& ops, In in) { return ops.attention(in[0], 2); }, "attention",
        "[2,10,4,4]");
    const auto resample = [](Resample mode) {
        return [mode](Builder& ops, In in) { return ops.resample(in[0], mode); };
    };
    expect_error({{2, 4, 7, 4}}, resample(Resample::down), "resample", "[2,4,7,4]");
    expect_error({{2, 4, 8, 5}}, resample(Resample::smooth_down_valid), "resample", "[2,4,8,5]");
    const auto concat = [](Builder& ops, In in) { return ops.concat(in[0], in[1]); };
    expect_error({{2, 4, 7, 4}, {3, 4, 7, 4}}, concat, "concat", "[3,4,7,4]");
    expect_error({{2, 4, 7, 7}, {2, 4, 8, 8}}, concat, "concat", "[2,4,8,8]");
    const auto add = [](Builder& ops, In in) { return ops.add(in[0], in[1]); };
    expect_error({{2, 4}, {2, 5}}, add, "add", "[2,5]");
    expect_error({{2, 4, 8, 8}, {2, 8}}, add, "add", "[2,8]");
    const auto slice = [](Builder& ops, In in) { return ops.slice(in[0], 3, 2); };
    expect_error({{2, 4}}, slice, "slice", "[2,4]");
    const auto multiply = [](Builder& ops, In in) { return ops.multiply(in[0], in[1]); };
    expect_error({{2, 4, 6}, {2, 4}}, multiply, "multiply", "[2,4]");
    expect_error({{2, 4, 8, 8}, {2, 4}}, multiply, "multiply", "[2,4]");
    expect_error(
        {{2, 4, 6}},
        [](Builder& ops, In in) {
            return ops.rms_norm(in[0], "norm_q", {.heads = 4, .eps = 1e-6});
        },
        "norm_q", "[2,4,6]");
    expect_error(
        {{2, 12, 6}},
        [](Builder& ops, In in) {
            return ops.cropped_positions(in[0], "grid", {.side = 3, .height = 2, .width = 6});
        },
        "grid", "[2,12,6]");
    expect_error(
        {{2, 12, 6}},
        [](Builder& ops, In in) {
            return ops.grid_sinusoid(in[0], {.height = 2, .width = 6, .base = 2});
        },
        "grid_sinusoid", "[2,12,6]");
    expect_error(
        {{2}}, [](Builder& ops, In in) { return ops.fourier(in[0], "map.freqs", 5); }, "map.freqs",
        "[2]");
    expect_error(
        {{2}}, [](Builder& ops, In in) { return ops.sinusoid(in[0], {.width = 5}); }, "sinusoid",
        "[2]");
    expect_error(
        {{2, 1, 7, 8}}, [](Builder& ops, In in) { return ops.pixel_unshuffle(in[0], 2); },
        "pixel_unshuffle", "[2,1,7,8]");
    expect_error(
        {{2, 6, 7, 8}}, [](Builder& ops, In in) { return ops.pixel_shuffle(in[0], 2); },
        "pixel_shuffle", "[2,6,7,8]");
    expect_error(
        {{2, 6}}, [](Builder& ops, In in) { return ops.global_average(in[0]); }, "global_average",
        "[2,6]");
}

TEST(Builder, elements_multiplies_the_sizes) {
    EXPECT_EQ(elements({2, 3, 4}), 24);
    EXPECT_EQ(elements({}), 1);
    EXPECT_EQ(elements({5, 0}), 0);
}

}  // namespace atelier::graph
