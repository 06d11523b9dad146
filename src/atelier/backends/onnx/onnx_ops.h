#pragma once

#include "atelier/backends/onnx/onnx_graph.h"
#include "atelier/backends/torch/constant_folding.h"

namespace atelier::backends {

/// The name of a value in an ONNX graph, or a constant.
using OnnxValue = Folded<std::string>;

/// Lowers recorded graphs to an ONNX graph of standard operators, for other runtimes. What depends
/// on constants alone is folded. The ONNX graph takes any batch size. Weights become its float32
/// constants; int8 weights (torch/quantised.h) stay int8, between QuantizeLinear and
/// DequantizeLinear. Throws core::Error on a missing parameter.
class OnnxOps {
public:
    /// Both must outlive this.
    OnnxOps(OnnxGraph& graph, const Parameters& parameters)
        : graph_(graph), parameters_(parameters) {}

    /// The names of the outputs of `graph`, recorded for a batch of one; constants have one row.
    std::vector<std::string> run(const graph::Graph& graph, const std::vector<OnnxValue>& inputs);

    using Unsupported = graph::OpList<graph::Block>;  // folding dissolves blocks
    using In = graph::Call<OnnxValue>;
    OnnxValue lower(const graph::Conv2d& layer, const In& in);
    OnnxValue lower(const graph::Linear& layer, const In& in);
    OnnxValue lower(const graph::GroupNorm& layer, const In& in);
    OnnxValue lower(const graph::LayerNorm& layer, const In& in);
    OnnxValue lower(const graph::RmsNorm& layer, const In& in);
    OnnxValue lower(const graph::Attention& layer, const In& in);
    OnnxValue lower(const graph::TokenAttention& layer, const In& in);
    OnnxValue lower(const graph::Resampling& layer, const In& in);
    OnnxValue lower(const graph::Concat&, const In& in);
    OnnxValue lower(const graph::Slice& layer, const In& in);
    OnnxValue lower(const graph::Add&, const In& in);
    OnnxValue lower(const graph::Multiply&, const In& in);
    OnnxValue lower(const graph::Scale& layer, const In& in);
    OnnxValue lower(const graph::Silu&, const In& in);
    OnnxValue lower(const graph::Relu&, const In& in);
    OnnxValue lower(const graph::Tanh&, const In& in);
    OnnxValue lower(const graph::Sinusoid& layer, const In& in);
    OnnxValue lower(const graph::Fourier& layer, const In& in);
    OnnxValue lower(const graph::PixelUnshuffle& layer, const In& in);
    OnnxValue lower(const graph::PixelShuffle& layer, const In& in);
    OnnxValue lower(const graph::GlobalAverage&, const In& in);
    OnnxValue lower(const graph::Embedding& layer, const In& in);
    OnnxValue lower(const graph::AddPositions& layer, const In& in);
    OnnxValue lower(const graph::CroppedPositions& layer, const In& in);
    OnnxValue lower(const graph::GridSinusoid& layer, const In& in);
    OnnxValue lower(const graph::Gelu& layer, const In& in);
    OnnxValue lower(const graph::QuickGelu&, const In& in);
    OnnxValue lower(const graph::Geglu&, const In& in);
    OnnxValue lower(const graph::Tokens&, const In& in);
    OnnxValue lower(const graph::Image& layer, const In& in);
    OnnxValue lower(const graph::PadCorner&, const In& in);

private:
    /// A value's name; a constant is added to the graph.
    std::string name_of(const OnnxValue& value);
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
    std::string silu_of(const std::string& x);
    /// The second input of an op, as one that broadcasts against the first.
    std::string broadcast(const In& in);
    std::string sinusoids(const std::string& x, const std::string& frequencies, bool sines_first);
    std::string smoothing(std::int64_t channels, double gain);
    /// A quantised layer's input and weight, between QuantizeLinear and DequantizeLinear.
    std::string quantised_input(const std::string& x, const std::string& layer);
    std::string dequantised_weight(const std::string& layer);

    OnnxGraph& graph_;
    std::vector<std::pair<Tensor, std::string>> folded_;  // the constants in the graph, by name
    const Parameters& parameters_;
};

}  // namespace atelier::backends
