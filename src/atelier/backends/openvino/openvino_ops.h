#pragma once

#include <openvino/core/model.hpp>

#include "atelier/backends/torch/torch_ops.h"

namespace atelier::backends {

/// Wraps a node of an OpenVINO graph as a value, and back.
graph::Value value_of(const ov::Output<ov::Node>& node);
ov::Output<ov::Node> node_of(const graph::Value& value);

/// A view of a contiguous float32 or int8 tensor on the CPU, whose memory it shares.
ov::Tensor view_of(const Tensor& tensor);

/// Lowers the op set to an OpenVINO graph; a value is a node (value_of) or a tensor, which is a
/// constant. Ops on constants alone are folded with LibTorch as they are added; where a constant
/// with several rows meets a node, each sample takes its row. So a fixed noise level costs nothing
/// at run time, and neither do a few fixed classes. Shapes are those of the batch that the graph is
/// written for; no node but the inputs depends on its size. Nodes may be float32 whatever the
/// graph's precision; results have the graph's precision. Weights are constants that refer to
/// `parameters` (float32 or int8, contiguous, on the CPU), which must outlive the graph, or copies
/// of float16 and bfloat16 ones. Throws core::Error on a missing parameter.
class OpenVinoOps : public graph::Ops {
public:
    struct Options {
        ov::element::Type precision = ov::element::f32;  // or bf16: of weights and activations
        bool int8 = false;  // quantised layers (ops/quantised.h) compute in int8 instead of with
                            // dequantised weights
        std::optional<ov::Output<ov::Node>> rows{};  // [N] int32: the row of every constant that
                                                     // each sample takes; without it, the first
    };

    explicit OpenVinoOps(const Parameters& parameters) : OpenVinoOps(parameters, Options{}) {}
    OpenVinoOps(const Parameters& parameters, Options options);

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
    /// A value as a node of the graph's precision; of a constant, each sample's row.
    ov::Output<ov::Node> node(const graph::Value& x) const;
    ov::Output<ov::Node> typed(const ov::Output<ov::Node>& x) const;
    Affine affine(const std::string& name, const graph::GroupNorm& layer,
                  std::int64_t channels) const;

    const Parameters& parameters_;
    Options options_;
    TorchOps constant_folder_;  // computes ops on constants
};

}  // namespace atelier::backends
