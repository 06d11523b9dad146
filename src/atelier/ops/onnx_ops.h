#pragma once

#include "atelier/ops/onnx_graph.h"
#include "atelier/ops/parameters.h"

namespace atelier::ops {

/// Lowers the op set to an ONNX graph of standard operators, for other runtimes. Values have the
/// shape of one sample; the graph takes any batch size. Weights become float32 constants of the
/// graph; int8 weights (ops/quantised.h) stay int8, between QuantizeLinear and DequantizeLinear.
/// Throws core::Error on a missing parameter.
class OnnxOps : public Ops {
public:
    /// Both must outlive this.
    OnnxOps(OnnxGraph& graph, const Parameters& parameters)
        : graph_(graph), parameters_(parameters) {}

    /// Wraps a name in the graph as a value; the first axis of `shape` must be 1.
    static Value value_of(const std::string& name, const Shape& shape);
    static const std::string& name_of(const Value& value);

    Shape shape(const Value& x) const override;
    Value conv2d(const Value& x, const std::string& name, const Convolution& layer) override;
    Value linear(const Value& x, const std::string& name, const Linear& layer) override;
    Value group_norm(const Value& x, const std::string& name, const GroupNorm& layer) override;
    Value layer_norm(const Value& x, const std::string& name, double eps) override;
    Value attention(const Value& qkv, std::int64_t heads) override;
    Value resample(const Value& x, Resample mode) override;
    Value concat(const Value& a, const Value& b) override;
    Value add(const Value& a, const Value& b) override;
    Value scale(const Value& x, double factor) override;
    Value silu(const Value& x) override;
    Value sinusoid(const Value& x, const Sinusoid& layer) override;
    Value fourier(const Value& x, const std::string& name, std::int64_t width) override;
    Value pixel_unshuffle(const Value& x, std::int64_t factor) override;
    Value pixel_shuffle(const Value& x, std::int64_t factor) override;
    Value global_average(const Value& x) override;
    Value embedding(const Value& ids, const std::string& name, std::int64_t rows,
                    std::int64_t width) override;
    Value add_positions(const Value& x, const std::string& name, std::int64_t rows) override;
    Value token_attention(const Value& q, const Value& k, const Value& v,
                          const TokenAttention& layer) override;
    Value gelu(const Value& x) override;
    Value quick_gelu(const Value& x) override;
    Value geglu(const Value& x) override;
    Value tokens(const Value& image) override;
    Value image(const Value& tokens, std::int64_t height, std::int64_t width) override;
    Value pad_corner(const Value& x) override;

private:
    /// A parameter as a constant, in its own or the given shape.
    std::string weight(const std::string& name, const Shape& shape = {});
    std::string matrix(const std::string& name);  // [in,out], of a weight [out,in]
    std::string reshaped(const std::string& x, const Shape& shape);  // 0 keeps an axis
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
    std::string sinusoids(const Value& x, const std::string& frequencies, bool sines_first);
    std::string smoothing(std::int64_t channels, double gain);
    /// A quantised layer's input and weight, between QuantizeLinear and DequantizeLinear.
    std::string quantised_input(const std::string& x, const std::string& layer);
    std::string dequantised_weight(const std::string& layer);

    OnnxGraph& graph_;
    const Parameters& parameters_;
};

}  // namespace atelier::ops
