#pragma once

#include <openvino/core/model.hpp>

#include "atelier/backends/torch/constant_folding.h"

namespace atelier::backends {

/// A view of a contiguous float32 or int8 tensor on the CPU, whose memory it shares.
ov::Tensor view_of(const Tensor& tensor);

/// A node of an OpenVINO graph, or a constant.
using OpenVinoValue = Folded<ov::Output<ov::Node>>;

/// Lowers recorded graphs to an OpenVINO graph. What depends on constants alone is folded; where a
/// constant with several rows meets a node, each sample takes its row. So a fixed noise level costs
/// nothing at run time, and neither do a few fixed classes. Shapes are those of the batch that the
/// graph is written for; no node but the inputs depends on its size. Nodes may be float32 whatever
/// the graph's precision; results have the graph's precision. Weights are constants that refer to
/// `parameters` (float32 or int8, contiguous, on the CPU), which must outlive the graph, or copies
/// of float16 and bfloat16 ones. Throws core::Error on a missing parameter.
class OpenVinoOps {
public:
    struct Options {
        ov::element::Type precision = ov::element::f32;  // or bf16: of weights and activations
        bool int8 = false;  // quantised layers (torch/quantised.h) compute in int8 instead of with
                            // dequantised weights
        std::optional<ov::Output<ov::Node>> rows{};  // [N] int32: the row of every constant that
                                                     // each sample takes; without it, the first
    };

    explicit OpenVinoOps(const Parameters& parameters) : OpenVinoOps(parameters, Options{}) {}
    OpenVinoOps(const Parameters& parameters, Options options);

    /// The outputs of `graph`, in its precision.
    std::vector<ov::Output<ov::Node>> run(const graph::Graph& graph,
                                          const std::vector<OpenVinoValue>& inputs);

    using Unsupported = graph::OpList<graph::Block>;  // folding dissolves blocks
    using In = graph::Call<OpenVinoValue>;
    OpenVinoValue lower(const graph::Conv2d& layer, const In& in) const;
    OpenVinoValue lower(const graph::Linear& layer, const In& in) const;
    OpenVinoValue lower(const graph::GroupNorm& layer, const In& in) const;
    OpenVinoValue lower(const graph::LayerNorm& layer, const In& in) const;
    OpenVinoValue lower(const graph::RmsNorm& layer, const In& in) const;
    OpenVinoValue lower(const graph::Attention& layer, const In& in) const;
    OpenVinoValue lower(const graph::TokenAttention& layer, const In& in) const;
    OpenVinoValue lower(const graph::Resampling& layer, const In& in) const;
    OpenVinoValue lower(const graph::Concat&, const In& in) const;
    OpenVinoValue lower(const graph::Slice& layer, const In& in) const;
    OpenVinoValue lower(const graph::Add&, const In& in) const;
    OpenVinoValue lower(const graph::Multiply&, const In& in) const;
    OpenVinoValue lower(const graph::Scale& layer, const In& in) const;
    OpenVinoValue lower(const graph::Silu&, const In& in) const;
    OpenVinoValue lower(const graph::Relu&, const In& in) const;
    OpenVinoValue lower(const graph::Tanh&, const In& in) const;
    OpenVinoValue lower(const graph::Sinusoid& layer, const In& in) const;
    OpenVinoValue lower(const graph::Fourier& layer, const In& in) const;
    OpenVinoValue lower(const graph::PixelUnshuffle& layer, const In& in) const;
    OpenVinoValue lower(const graph::PixelShuffle& layer, const In& in) const;
    OpenVinoValue lower(const graph::GlobalAverage&, const In& in) const;
    OpenVinoValue lower(const graph::Embedding& layer, const In& in) const;
    OpenVinoValue lower(const graph::AddPositions& layer, const In& in) const;
    OpenVinoValue lower(const graph::CroppedPositions& layer, const In& in) const;
    OpenVinoValue lower(const graph::GridSinusoid& layer, const In& in) const;
    OpenVinoValue lower(const graph::Gelu& layer, const In& in) const;
    OpenVinoValue lower(const graph::QuickGelu&, const In& in) const;
    OpenVinoValue lower(const graph::Geglu&, const In& in) const;
    OpenVinoValue lower(const graph::Tokens&, const In& in) const;
    OpenVinoValue lower(const graph::Image& layer, const In& in) const;
    OpenVinoValue lower(const graph::PadCorner&, const In& in) const;

private:
    struct Affine {
        ov::Output<ov::Node> weight, bias;  // [1,C], or [R,C] with one row per sample
        bool has_rows = false;              // R rows to choose from
    };

    /// A parameter as float32 (or bfloat16, where it is stored in two bytes and the graph computes
    /// in bfloat16), in its own shape or another one with as many elements. An int8 one is
    /// multiplied by its scale.
    ov::Output<ov::Node> constant(const std::string& name, const graph::Shape& shape = {}) const;
    /// A quantised layer's input, rounded to its int8 steps.
    ov::Output<ov::Node> quantised_input(const ov::Output<ov::Node>& x,
                                         const std::string& layer) const;
    /// A parameter in the graph's precision.
    ov::Output<ov::Node> weight(const std::string& name, const graph::Shape& shape = {}) const {
        return typed(constant(name, shape));
    }
    /// A value as a node of the graph's precision; of a constant, each sample's row. An op with
    /// several inputs reads each so, since one of them may be a constant. An op with one input sees
    /// a constant only where it stays unfolded (split_constants: a Linear on many rows); others may
    /// read it as it is (`node_of`), in whatever precision it has.
    ov::Output<ov::Node> node(const OpenVinoValue& x) const;
    ov::Output<ov::Node> typed(const ov::Output<ov::Node>& x) const;
    /// The second input of an op, as one that broadcasts against the first.
    ov::Output<ov::Node> broadcast(const In& in) const;
    Affine affine(const graph::GroupNorm& layer, const In& in) const;

    const Parameters& parameters_;
    Options options_;
};

}  // namespace atelier::backends
