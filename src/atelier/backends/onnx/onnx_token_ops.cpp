#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "atelier/backends/onnx/onnx_ops.h"
#include "atelier/graph/sinusoid.h"

namespace atelier::backends {

OnnxValue OnnxOps::lower(const graph::Embedding& layer, const In& in) {
    return graph_.node("Gather", {weight(layer.name + ".weight"), name_of(in[0])}, layer.name,
                       {{"axis", std::int64_t{0}}});
}

OnnxValue OnnxOps::lower(const graph::AddPositions& layer, const In& in) {
    const std::string& name = layer.name;
    const std::int64_t count = in.shape()[1];
    const std::string rows = graph_.constant(
        fmt::format("{}.weight of {}", name, count),
        parameters_.at(name + ".weight").detach().to(at::kFloat).narrow(0, 0, count));
    return graph_.node("Add", {name_of(in[0]), rows}, name);
}

OnnxValue OnnxOps::lower(const graph::CroppedPositions& layer, const In& in) {
    const std::string rows =
        graph_.constant(fmt::format("{} of {}x{}", layer.name, layer.height, layer.width),
                        cropped_table(parameters_.at(layer.name), layer).detach().to(at::kFloat));
    return plus(name_of(in[0]), rows);
}

OnnxValue OnnxOps::lower(const graph::GridSinusoid& layer, const In& in) {
    const graph::Shape& s = in.shape();
    const std::string rows =
        graph_.constant(fmt::format("sinusoids of {}x{} of {}, {} wide", layer.height, layer.width,
                                    layer.base, s[2]),
                        at::tensor(graph::grid_table(layer, s[2])).view({1, s[1], s[2]}));
    return plus(name_of(in[0]), rows);
}

OnnxValue OnnxOps::lower(const graph::RmsNorm& layer, const In& in) {
    const graph::Shape& s = in.shape();
    const std::string x = reshaped(name_of(in[0]), {0, s[1], layer.heads, s[2] / layer.heads});
    const std::string mean =
        graph_.node("ReduceMean", {times(x, x)}, layer.name,
                    {{"axes", std::vector<std::int64_t>{-1}}, {"keepdims", std::int64_t{1}}});
    const std::string norm =
        graph_.node("Sqrt", {plus(mean, graph_.scalar(static_cast<float>(layer.eps)))}, layer.name);
    return reshaped(
        times(graph_.node("Div", {x, norm}, layer.name), weight(layer.name + ".weight")),
        {0, s[1], s[2]});
}

OnnxValue OnnxOps::lower(const graph::TokenAttention& layer, const In& in) {
    const graph::Shape& s = in.shape();
    const std::int64_t width = s[2] / layer.heads;
    const auto split = [&](std::size_t i, const std::vector<std::int64_t>& order) {
        return transposed(reshaped(name_of(in[i]), {0, in.shape_of(i)[1], layer.heads, width}),
                          order);
    };
    const std::string y = attended(split(0, {0, 2, 1, 3}), split(1, {0, 2, 3, 1}),
                                   split(2, {0, 2, 1, 3}), width, layer.causal ? s[1] : 0);
    return reshaped(transposed(y, {0, 2, 1, 3}), {0, s[1], s[2]});
}

std::string OnnxOps::gelu_of(const std::string& x) {
    const std::string error = graph_.node(
        "Erf", {times(x, graph_.scalar(static_cast<float>(1 / std::numbers::sqrt2)))}, "gelu");
    return times(times(x, graph_.scalar(0.5F)), plus(error, graph_.scalar(1)));
}

OnnxValue OnnxOps::lower(const graph::Gelu& layer, const In& in) {
    const std::string x = name_of(in[0]);
    if (!layer.tanh) return gelu_of(x);
    const std::string cube = times(times(x, times(x, x)), graph_.scalar(0.044715F));
    const auto factor = static_cast<float>(std::sqrt(2 * std::numbers::inv_pi));
    const std::string curve =
        graph_.node("Tanh", {times(plus(x, cube), graph_.scalar(factor))}, "gelu");
    return times(times(x, graph_.scalar(0.5F)), plus(curve, graph_.scalar(1)));
}

OnnxValue OnnxOps::lower(const graph::QuickGelu&, const In& in) {
    const std::string x = name_of(in[0]);
    return times(x, graph_.node("Sigmoid", {times(x, graph_.scalar(1.702F))}, "gelu"));
}

OnnxValue OnnxOps::lower(const graph::Geglu&, const In& in) {
    const std::string halves =
        graph_.node("Split", {name_of(in[0])}, "geglu", {{"axis", std::int64_t{-1}}}, 2);
    return times(halves, gelu_of(OnnxGraph::result(halves, 1)));
}

OnnxValue OnnxOps::lower(const graph::Tokens&, const In& in) {
    const graph::Shape& s = in.shape();
    return transposed(reshaped(name_of(in[0]), {0, s[2], s[1]}), {0, 2, 1});
}

OnnxValue OnnxOps::lower(const graph::Image& layer, const In& in) {
    return reshaped(transposed(name_of(in[0]), {0, 2, 1}),
                    {0, in.shape()[1], layer.height, layer.width});
}

OnnxValue OnnxOps::lower(const graph::PadCorner&, const In& in) {
    return graph_.node("Pad", {name_of(in[0]), graph_.integers({0, 0, 0, 0, 0, 0, 1, 1})}, "pad");
}

}  // namespace atelier::backends
