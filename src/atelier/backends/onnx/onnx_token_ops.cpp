#include <fmt/format.h>

#include <numbers>

#include "atelier/backends/onnx/onnx_ops.h"

namespace atelier::backends {

graph::Value OnnxOps::embedding(const graph::Value& ids, const std::string& name, std::int64_t,
                                std::int64_t width) {
    return value_of(graph_.node("Gather", {weight(name + ".weight"), name_of(ids)}, name,
                                {{"axis", std::int64_t{0}}}),
                    {1, shape(ids)[1], width});
}

graph::Value OnnxOps::add_positions(const graph::Value& x, const std::string& name, std::int64_t) {
    const std::int64_t count = shape(x)[1];
    const std::string rows = graph_.constant(
        fmt::format("{}.weight of {}", name, count),
        parameters_.at(name + ".weight").detach().to(at::kFloat).narrow(0, 0, count));
    return value_of(graph_.node("Add", {name_of(x), rows}, name), shape(x));
}

graph::Value OnnxOps::token_attention(const graph::Value& q, const graph::Value& k,
                                      const graph::Value& v, const graph::TokenAttention& layer) {
    const graph::Shape s = shape(q);
    const std::int64_t width = s[2] / layer.heads;
    const auto split = [&](const graph::Value& x, const std::vector<std::int64_t>& order) {
        return transposed(reshaped(name_of(x), {0, shape(x)[1], layer.heads, width}), order);
    };
    const std::string y = attended(split(q, {0, 2, 1, 3}), split(k, {0, 2, 3, 1}),
                                   split(v, {0, 2, 1, 3}), width, layer.causal ? s[1] : 0);
    return value_of(reshaped(transposed(y, {0, 2, 1, 3}), {0, s[1], s[2]}), s);
}

std::string OnnxOps::gelu_of(const std::string& x) {
    const std::string error = graph_.node(
        "Erf", {times(x, graph_.scalar(static_cast<float>(1 / std::numbers::sqrt2)))}, "gelu");
    return times(times(x, graph_.scalar(0.5F)), plus(error, graph_.scalar(1)));
}

graph::Value OnnxOps::gelu(const graph::Value& x) {
    return value_of(gelu_of(name_of(x)), shape(x));
}

graph::Value OnnxOps::quick_gelu(const graph::Value& x) {
    return value_of(
        times(name_of(x),
              graph_.node("Sigmoid", {times(name_of(x), graph_.scalar(1.702F))}, "gelu")),
        shape(x));
}

graph::Value OnnxOps::geglu(const graph::Value& x) {
    graph::Shape s = shape(x);
    s.back() /= 2;
    const std::string halves =
        graph_.node("Split", {name_of(x)}, "geglu", {{"axis", std::int64_t{-1}}}, 2);
    return value_of(times(halves, gelu_of(OnnxGraph::result(halves, 1))), s);
}

graph::Value OnnxOps::tokens(const graph::Value& image) {
    const graph::Shape s = shape(image);
    return value_of(transposed(reshaped(name_of(image), {0, s[1], s[2] * s[3]}), {0, 2, 1}),
                    {1, s[2] * s[3], s[1]});
}

graph::Value OnnxOps::image(const graph::Value& tokens, std::int64_t height, std::int64_t width) {
    const std::int64_t channels = shape(tokens)[2];
    return value_of(reshaped(transposed(name_of(tokens), {0, 2, 1}), {0, channels, height, width}),
                    {1, channels, height, width});
}

graph::Value OnnxOps::pad_corner(const graph::Value& x) {
    const graph::Shape s = shape(x);
    return value_of(
        graph_.node("Pad", {name_of(x), graph_.integers({0, 0, 0, 0, 0, 0, 1, 1})}, "pad"),
        {1, s[1], s[2] + 1, s[3] + 1});
}

}  // namespace atelier::backends
