#pragma once

#include <openvino/core/model.hpp>

#include "atelier/ops/torch_ops.h"

namespace atelier::ops {

/// Wraps a node of an OpenVINO graph as a value, and back.
Value value_of(const ov::Output<ov::Node>& node);
ov::Output<ov::Node> node_of(const Value& value);

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
class OpenVinoOps : public Ops {
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
    struct Affine {
        ov::Output<ov::Node> weight, bias;  // [1,C], or [R,C] with one row per sample
        bool has_rows = false;              // R rows to choose from
    };

    /// A parameter as float32 (or bfloat16, where it is stored in two bytes and the graph computes
    /// in bfloat16), in its own shape or another one with as many elements. An int8 one is
    /// multiplied by its scale.
    ov::Output<ov::Node> constant(const std::string& name, const Shape& shape = {}) const;
    /// A quantised layer's input, rounded to its int8 steps.
    ov::Output<ov::Node> quantised_input(const ov::Output<ov::Node>& x,
                                         const std::string& layer) const;
    /// A parameter in the graph's precision.
    ov::Output<ov::Node> weight(const std::string& name, const Shape& shape = {}) const {
        return typed(constant(name, shape));
    }
    /// A value as a node of the graph's precision; of a constant, each sample's row.
    ov::Output<ov::Node> node(const Value& x) const;
    ov::Output<ov::Node> typed(const ov::Output<ov::Node>& x) const;
    Affine affine(const std::string& name, const GroupNorm& layer, std::int64_t channels) const;

    const Parameters& parameters_;
    Options options_;
    TorchOps constant_folder_;  // computes ops on constants
};

}  // namespace atelier::ops
