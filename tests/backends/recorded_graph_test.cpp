#include <set>

#include "atelier/backends/torch/torch_ops.h"
#include "backends/tensors.h"
#include "graph/every_op.h"

namespace atelier::backends {

namespace {

std::vector<Tensor> inputs() {
    return {normal({2, 3, 16, 8}, "image"), normal({2}, "number"), at::arange(8).view({2, 4})};
}

/// TorchOps that compares every result's shape with the recorded one.
class CheckedOps : public TorchOps {
public:
    using TorchOps::TorchOps;

    template <class Op>
    Tensor lower(const Op& op, const In& in) {
        const Tensor result = TorchOps::lower(op, in);
        EXPECT_EQ(result.sizes().vec(), in.shape()) << graph::name_of(in.node.op);
        ++count;
        return result;
    }

    int count = 0;
};

}  // namespace

TEST(RecordedGraph, has_the_shapes_that_torch_ops_computes) {
    const graph::Graph graph = graph::record_every_op();
    const Parameters parameters = filled(graph.parameters);
    CheckedOps torch(parameters);
    graph::execute<Tensor>(graph, torch, inputs());
    EXPECT_EQ(torch.count, static_cast<int>(graph.nodes.size() - graph.inputs.size()));
}

TEST(RecordedGraph, lists_exactly_the_parameters_that_torch_ops_reads) {
    const graph::Graph graph = graph::record_every_op();
    const Parameters all = filled(graph.parameters);
    std::map<std::string, Tensor> read;
    for (const graph::ParameterSpec& spec : graph.parameters) {
        Parameters without;
        for (const auto& [name, tensor] : all.tensors()) {
            if (name != spec.name) without.set(name, tensor);
        }
        expect_contains(error_of([&] { TorchOps(without).run(graph, inputs()); }), spec.name);
    }
    TorchOps torch(all);
    torch.record_reads(read);
    torch.run(graph, inputs());
    ASSERT_EQ(read.size(), graph.parameters.size());
    for (const graph::ParameterSpec& spec : graph.parameters)
        EXPECT_TRUE(read.at(spec.name).is_same(all.at(spec.name))) << spec.name;
}

TEST(RecordedGraph, takes_any_batch) {
    const graph::Graph graph = graph::record_every_op();
    const Parameters parameters = filled(graph.parameters);
    const TorchOps torch(parameters);
    const auto two = torch.run(graph, inputs());
    std::vector<Tensor> first;
    for (const Tensor& input : inputs()) first.push_back(input.narrow(0, 0, 1));
    const auto one = torch.run(graph, first);
    for (std::size_t i = 0; i < one.size(); ++i)
        EXPECT_LT(relative_distance(one[i], two[i].narrow(0, 0, 1)), 1e-5);
}

TEST(RecordedGraph, convolutions_can_be_replaced_inside_blocks_too) {
    const graph::Graph graph =
        graph::record({{1, 3, 4, 4}}, [](graph::Builder& ops, std::span<const graph::Value> in) {
            const auto layer = [](graph::Builder& inner, std::span<const graph::Value> at) {
                return inner.conv2d(at[0], "a", {.out_channels = 3});
            };
            return std::vector{ops.block(in, layer)};
        });
    const Parameters parameters = filled(graph.parameters);
    const Tensor x = normal({2, 3, 4, 4}, "x");
    const TorchOps plain(parameters);
    TorchOps torch(parameters);
    torch.replace_convolutions([&](const graph::Conv2d& layer, const Tensor& input) {
        EXPECT_EQ(layer.name, "a");
        return plain.convolved(layer, input) + 1;
    });
    EXPECT_TRUE(
        torch.run(graph, std::span(&x, 1))[0].equal(plain.run(graph, std::span(&x, 1))[0] + 1));
}

}  // namespace atelier::backends
