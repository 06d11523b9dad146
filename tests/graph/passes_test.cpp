#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "atelier/graph/constants.h"
#include "atelier/graph/cost.h"
#include "atelier/graph/execute.h"
#include "atelier/graph/graph_cache.h"
#include "atelier/networks/network.h"
#include "graph/every_op.h"

namespace atelier::graph {

namespace {

using In = std::span<const Value>;

double flops_of(const Shape& input, const Body& body) {
    return flops(record({input}, [&](Builder& ops, In in) { return std::vector{body(ops, in)}; }));
}

networks::Network network_of(const nlohmann::json& config) {
    return networks::make_network(core::JsonObject(config, "config.json"));
}

networks::Network small_unet() {
    return network_of({{"architecture", "adm_unet"},
                       {"resolution", 16},
                       {"channels", 3},
                       {"classes", 4},
                       {"model_channels", 64},
                       {"channel_mult", {1, 2}},
                       {"num_blocks", 1},
                       {"attention_resolutions", {8}}});
}

/// A backend whose values say how they were computed.
struct Describe {
    using Unsupported = OpList<Embedding, Block>;

    template <class Op>
    std::string lower(const Op& op, const Call<std::string>& in) const {
        std::string text = std::string(name_of(Op(op))) + "(";
        for (const std::string& one : in.in) text += one + " ";
        return text + ")";
    }
};

}  // namespace

TEST(Flops, counts_two_operations_for_every_multiplication) {
    EXPECT_EQ(
        flops_of({2, 3, 5, 6},
                 [](Builder& ops, In in) { return ops.conv2d(in[0], "a", {.out_channels = 8}); }),
        2.0 * 2 * 8 * 5 * 6 * 3 * 9);
    EXPECT_EQ(flops_of({1, 3, 8, 8},
                       [](Builder& ops, In in) {
                           return ops.conv2d(
                               in[0], "a",
                               {.out_channels = 4, .kernel = 4, .stride = 2, .padding = 1});
                       }),
              2.0 * 4 * 4 * 4 * 3 * 16);
    EXPECT_EQ(flops_of({3, 5}, [](Builder& ops,
                                  In in) { return ops.linear(in[0], "a", {.out_features = 7}); }),
              2.0 * 3 * 5 * 7);
    // Scores and their use: positions^2 products over 10 channels, twice.
    EXPECT_EQ(flops_of({2, 30, 3, 4}, [](Builder& ops, In in) { return ops.attention(in[0], 2); }),
              2.0 * 2 * 2 * 10 * 12 * 12);
    EXPECT_EQ(flops_of({2, 6, 8},
                       [](Builder& ops, In in) {
                           return ops.token_attention(in[0], in[0], in[0], {.heads = 2});
                       }),
              2.0 * 2 * 2 * 6 * 6 * 8);
}

TEST(Flops, are_the_same_inside_a_block) {
    const auto layer = [](Builder& ops, In in) {
        return ops.linear(in[0], "a", {.out_features = 7});
    };
    EXPECT_EQ(flops_of({3, 5}, [&](Builder& ops, In in) { return ops.block(in, layer); }),
              flops_of({3, 5}, layer));
}

TEST(WithoutBlocks, has_the_same_nodes_results_and_parameters) {
    const networks::Network network = small_unet();
    const auto graph = networks::graph_of(network, networks::input_shapes(network));
    const Graph flat = without_blocks(*graph);
    EXPECT_STREQ(first_unsupported<Describe>(*graph), nullptr);
    for (const Node& node : flat.nodes) EXPECT_FALSE(std::holds_alternative<Block>(node.op));
    EXPECT_EQ(flops(flat), flops(*graph));
    EXPECT_EQ(flat.parameters.size(), graph->parameters.size());
    EXPECT_EQ(flat.shape(flat.outputs[0]), graph->shape(graph->outputs[0]));
    const ActivationPolicy training{.backward = true};
    EXPECT_EQ(memory(flat, training).retained, memory(*graph, training).retained);
}

TEST(SplitConstants, what_depends_on_the_noise_level_alone_is_computed_once) {
    const Graph graph = record({{1, 8}, {1}}, [](Builder& ops, In in) {
        const Value e = ops.linear(ops.sinusoid(in[1], {.width = 4}), "e", {.out_features = 8});
        return std::vector{ops.add(ops.silu(in[0]), ops.block({&e, 1}, [](Builder& inner, In at) {
            return inner.silu(at[0]);
        }))};
    });
    const std::vector<std::int64_t> rows{0, 1};
    const SplitGraph split = split_constants(graph, rows);
    Describe describe;
    const std::vector<std::string> level{"level"};
    const auto folded = execute<std::string>(split.constant, describe, level);
    EXPECT_EQ(folded, (std::vector<std::string>{"silu(linear(sinusoid(level ) ) )"}));
    EXPECT_EQ(execute<std::string>(split.rest, describe, std::vector<std::string>{"x", "folded"}),
              (std::vector<std::string>{"add(silu(x ) folded )"}));
}

TEST(SplitConstants, a_linear_layer_on_more_rows_than_columns_stays) {
    const Graph graph = record({{1, 8}, {1, 3}}, [](Builder& ops, In in) {
        return std::vector{ops.add(in[0], ops.linear(in[1], "a", {.out_features = 8}))};
    });
    const auto nodes_of_rest = [&](std::int64_t rows) {
        return split_constants(graph, std::vector<std::int64_t>{0, rows}).rest.nodes.size();
    };
    EXPECT_EQ(nodes_of_rest(3), 3U);  // x, the folded layer, add
    EXPECT_EQ(nodes_of_rest(4), 4U);  // x, labels, linear, add
}

TEST(SplitConstants, outputs_may_be_constants_and_nothing_may_be) {
    const Graph graph = record({{1, 8}, {1, 8}}, [](Builder& ops, In in) {
        return std::vector{ops.silu(in[1]), ops.silu(in[0])};
    });
    Describe describe;
    const SplitGraph split = split_constants(graph, std::vector<std::int64_t>{0, 1});
    EXPECT_EQ(execute<std::string>(split.rest, describe, std::vector<std::string>{"x", "c"}),
              (std::vector<std::string>{"c", "silu(x )"}));
    const SplitGraph none = split_constants(graph, std::vector<std::int64_t>{0, 0});
    EXPECT_TRUE(none.constant.nodes.empty());
    EXPECT_EQ(none.rest.nodes.size(), 4U);
}

TEST(SplitConstants, at_one_noise_level_a_network_computes_no_embedding) {
    const networks::Network network = small_unet();
    const auto graph = networks::graph_of(network, networks::input_shapes(network));
    const SplitGraph split = split_constants(*graph, std::vector<std::int64_t>{0, 1, 4});
    for (const Node& node : split.rest.nodes)
        EXPECT_FALSE(std::holds_alternative<Linear>(node.op) ||
                     std::holds_alternative<Sinusoid>(node.op));
    EXPECT_EQ(flops(split.rest) + flops(split.constant), flops(*graph));
}

TEST(FirstUnsupported, names_the_op_and_looks_into_blocks) {
    const Graph graph = record({{1, 4}}, [](Builder& ops, In in) {
        return std::vector{ops.block(in, [](Builder& inner, In at) {
            return inner.embedding(inner.silu(at[0]), "words", 9, 4);
        })};
    });
    EXPECT_STREQ(first_unsupported<Describe>(graph), "embedding");
    EXPECT_STREQ(first_unsupported<Describe>(record_every_op()), "embedding");
}

TEST(Memory, recomputed_blocks_retain_only_their_inputs) {
    const networks::Network network = small_unet();
    const auto graph = networks::graph_of(network, networks::input_shapes(network));
    const MemoryEstimate all = memory(*graph, {.backward = true}),
                         inputs = memory(*graph, {.backward = true, .recompute = true}),
                         inference = memory(*graph, {});
    EXPECT_LT(inputs.retained, 0.4 * all.retained);
    EXPECT_GT(inputs.block, 0);
    EXPECT_EQ(inference.retained, 0);
    EXPECT_LT(inference.peak, inputs.retained + inputs.block);
    EXPECT_EQ(memory(*graph, {.backward = true, .element_size = 2}).largest, all.largest / 2);
    EXPECT_GT(memory(*graph, {.backward = true, .fused_norm = false}).retained, all.retained);
}

TEST(GraphCache, records_a_function_once_per_shapes_whatever_the_batch) {
    GraphCache cache;
    int recorded = 0;
    const Function function = [&](Builder& ops, In in) {
        ++recorded;
        return std::vector{ops.silu(in[0])};
    };
    const auto first = cache.graph({{8, 4}}, function);
    EXPECT_EQ(cache.graph({{3, 4}}, function), first);
    EXPECT_EQ(recorded, 1);
    EXPECT_EQ(first->shape(first->outputs[0]), (Shape{1, 4}));
    for (std::int64_t width = 5; width < 60; ++width) cache.graph({{1, width}}, function);
    EXPECT_EQ(recorded, 56);
    cache.graph({{1, 59}}, function);
    EXPECT_EQ(recorded, 56) << "the latest are kept";
}

TEST(GraphCache, threads_share_one_graph) {
    const networks::Network network = small_unet();
    std::vector<std::shared_ptr<const Graph>> seen(4);
    std::vector<std::thread> threads;
    for (auto& graph : seen) {
        threads.emplace_back([&] {
            const networks::Network copy = network;
            graph = networks::graph_of(copy, networks::input_shapes(copy));
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& graph : seen) EXPECT_EQ(graph, seen[0]);
}

}  // namespace atelier::graph
