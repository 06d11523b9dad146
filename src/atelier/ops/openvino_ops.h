#pragma once

#include <openvino/core/model.hpp>

#include "atelier/ops/torch_ops.h"

namespace atelier::ops {

/// A node of an OpenVINO graph as a value of the vocabulary.
Value value_of(const ov::Output<ov::Node>& node);
ov::Output<ov::Node> node_of(const Value& value);

/// A view of a contiguous float32 or int8 tensor on the CPU, whose memory it shares.
ov::Tensor view_of(const Tensor& tensor);

/// Speaks the vocabulary by writing an OpenVINO graph; a value is a node (value_of) or a tensor. Tensors are tables, known numbers: what follows
/// from tables alone is computed at once, by LibTorch, and where a table meets a node it becomes a constant of which each sample takes its row.
/// So a fixed noise level costs nothing when the graph runs, and neither do a few fixed classes. Shapes are those of the batch that the graph is
/// written for; no node but the inputs depends on its size. Nodes may be float32 whatever the graph's precision, results are of its own; weights are
/// constants that look into `parameters` (float32 or int8, contiguous, on the CPU), which must outlive the graph, or copies of float16 and bfloat16 ones. Throws core::Error on a parameter that is
/// missing.
class OpenVinoOps : public Ops {
public:
    struct Options {
        ov::element::Type precision = ov::element::f32;  // or bf16: of weights and of what flows between layers
        bool int8 = false;                               // quantised layers (ops/quantised.h) compute in int8, rather than from dequantised weights
        std::optional<ov::Output<ov::Node>> rows{};      // [N] int32: the row of every table that a sample takes; without, all take the first
    };

    explicit OpenVinoOps(const Parameters& parameters) : OpenVinoOps(parameters, Options{}) {}
    OpenVinoOps(const Parameters& parameters, Options options);

    Shape shape(const Value& x) const override;
    Value conv2d(const Value& x, const std::string& name, const Convolution& layer) override;
    Value linear(const Value& x, const std::string& name, const Linear& layer) override;
    Value group_norm(const Value& x, const std::string& name, const GroupNorm& layer) override;
    Value layer_norm(const Value& x, const std::string& name, double eps) override;
    Value attention(const Value& qkv, std::int64_t heads) override;
    Value resample(const Value& x, Resample how) override;
    Value concat(const Value& a, const Value& b) override;
    Value add(const Value& a, const Value& b) override;
    Value scale(const Value& x, double factor) override;
    Value silu(const Value& x) override;
    Value sinusoid(const Value& x, const Sinusoid& layer) override;
    Value fourier(const Value& x, const std::string& name, std::int64_t width) override;
    Value pixel_unshuffle(const Value& x, std::int64_t factor) override;
    Value pixel_shuffle(const Value& x, std::int64_t factor) override;
    Value global_average(const Value& x) override;
    Value embedding(const Value& ids, const std::string& name, std::int64_t rows, std::int64_t width) override;
    Value add_positions(const Value& x, const std::string& name, std::int64_t rows) override;
    Value token_attention(const Value& q, const Value& k, const Value& v, const TokenAttention& how) override;
    Value gelu(const Value& x) override;
    Value quick_gelu(const Value& x) override;
    Value geglu(const Value& x) override;
    Value tokens(const Value& image) override;
    Value image(const Value& tokens, std::int64_t height, std::int64_t width) override;
    Value pad_corner(const Value& x) override;

private:
    struct Affine {
        ov::Output<ov::Node> gain, offset;  // [1,C], or [R,C] with a row a sample
        bool table = false;                 // R rows to choose from
    };

    /// A parameter as float32 numbers (of two bytes where it is stored so and the graph computes so) of its own shape, or of another with as many numbers. One in int8 is multiplied by its scale.
    ov::Output<ov::Node> constant(const std::string& name, const Shape& shape = {}) const;
    /// A quantised layer's input, rounded to its steps.
    ov::Output<ov::Node> in_steps(const ov::Output<ov::Node>& x, const std::string& layer) const;
    /// The same in the graph's precision.
    ov::Output<ov::Node> weight(const std::string& name, const Shape& shape = {}) const { return typed(constant(name, shape)); }
    /// A value as a node of the graph's precision: each sample's row of a table.
    ov::Output<ov::Node> node(const Value& x) const;
    ov::Output<ov::Node> typed(const ov::Output<ov::Node>& x) const;
    Affine affine(const std::string& name, const GroupNorm& layer, std::int64_t channels) const;

    const Parameters& parameters_;
    Options options_;
    TorchOps known_;  // computes what follows from tables alone
};

}  // namespace atelier::ops
