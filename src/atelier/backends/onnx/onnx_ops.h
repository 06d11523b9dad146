#pragma once

#include "atelier/backends/onnx/onnx_graph.h"
#include "atelier/backends/torch/parameters.h"

namespace atelier::backends {

/// Lowers the op set to an ONNX graph of standard operators, for other runtimes. Values have the
/// shape of one sample; the graph takes any batch size. Weights become float32 constants of the
/// graph; int8 weights (ops/quantised.h) stay int8, between QuantizeLinear and DequantizeLinear.
/// Throws core::Error on a missing parameter.
class OnnxOps : public graph::Ops {
public:
    /// Both must outlive this.
    OnnxOps(OnnxGraph& graph, const Parameters& parameters)
        : graph_(graph), parameters_(parameters) {}

    /// Wraps a name in the graph as a value; the first axis of `shape` must be 1.
    static graph::Value value_of(const std::string& name, const graph::Shape& shape);
    static const std::string& name_of(const graph::Value& value);

    graph::Shape shape(const graph::Value& x) const override;
    graph::Value conv2d(const graph::Value& x, const std::string& name,
                        const graph::Convolution& layer) override;
    graph::Value linear(const graph::Value& x, const std::string& name,
                        const graph::Linear& layer) override;
    graph::Value group_norm(const graph::Value& x, const std::string& name,
                            const graph::GroupNorm& layer) override;
    graph::Value layer_norm(const graph::Value& x, const std::string& name, double eps) override;
    graph::Value attention(const graph::Value& qkv, std::int64_t heads) override;
    graph::Value resample(const graph::Value& x, graph::Resample mode) override;
    graph::Value concat(const graph::Value& a, const graph::Value& b) override;
    graph::Value add(const graph::Value& a, const graph::Value& b) override;
    graph::Value scale(const graph::Value& x, double factor) override;
    graph::Value silu(const graph::Value& x) override;
    graph::Value sinusoid(const graph::Value& x, const graph::Sinusoid& layer) override;
    graph::Value fourier(const graph::Value& x, const std::string& name,
                         std::int64_t width) override;
    graph::Value pixel_unshuffle(const graph::Value& x, std::int64_t factor) override;
    graph::Value pixel_shuffle(const graph::Value& x, std::int64_t factor) override;
    graph::Value global_average(const graph::Value& x) override;
    graph::Value embedding(const graph::Value& ids, const std::string& name, std::int64_t rows,
                           std::int64_t width) override;
    graph::Value add_positions(const graph::Value& x, const std::string& name,
                               std::int64_t rows) override;
    graph::Value token_attention(const graph::Value& q, const graph::Value& k,
                                 const graph::Value& v,
                                 const graph::TokenAttention& layer) override;
    graph::Value gelu(const graph::Value& x) override;
    graph::Value quick_gelu(const graph::Value& x) override;
    graph::Value geglu(const graph::Value& x) override;
    graph::Value tokens(const graph::Value& image) override;
    graph::Value image(const graph::Value& tokens, std::int64_t height,
                       std::int64_t width) override;
    graph::Value pad_corner(const graph::Value& x) override;

private:
    /// A parameter as a constant, in its own or the given shape.
    std::string weight(const std::string& name, const graph::Shape& shape = {});
    std::string matrix(const std::string& name);  // [in,out], of a weight [out,in]
    std::string reshaped(const std::string& x, const graph::Shape& shape);  // 0 keeps an axis
    std::string transposed(const std::string& x, const std::vector<std::int64_t>& order);
    std::string times(const std::string& a, const std::string& b) {
        return graph_.node("Mul", {a, b}, "times");
    }
    std::string plus(const std::string& a, const std::string& b) {
        return graph_.node("Add", {a, b}, "plus");
    }
    std::string part(const std::string& x, std::int64_t axis, std::int64_t index);
    std::string attended(const std::string& q, const std::string& keys_transposed,
                         const std::string& v, std::int64_t width, std::int64_t causal_tokens);
    std::string gelu_of(const std::string& x);
    std::string sinusoids(const graph::Value& x, const std::string& frequencies, bool sines_first);
    std::string smoothing(std::int64_t channels, double gain);
    /// A quantised layer's input and weight, between QuantizeLinear and DequantizeLinear.
    std::string quantised_input(const std::string& x, const std::string& layer);
    std::string dequantised_weight(const std::string& layer);

    OnnxGraph& graph_;
    const Parameters& parameters_;
};

}  // namespace atelier::backends
