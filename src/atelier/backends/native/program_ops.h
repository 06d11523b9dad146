#pragma once

#include "atelier/backends/native/program.h"
#include "atelier/backends/torch/torch_ops.h"

namespace atelier::backends {

/// Lowers the op set to a Program: float32, channels innermost, 3x3 convolutions by Winograd's
/// minimal filtering where that pays, weights as panels that are read once per step. A value is a
/// result of the program, or a tensor, which is a constant: ops on constants alone are folded as
/// they are added, and where a constant meets a result each sample takes its row, as in
/// OpenVinoOps. Copies the parameters that it needs. Shapes are those of one sample, [1,...].
/// Throws UnsupportedOp on ops and inputs that it does not support, core::Error on a missing
/// parameter.
class ProgramOps : public graph::Ops {
public:
    struct UnsupportedOp {};

    explicit ProgramOps(const Parameters& parameters)
        : parameters_(parameters), constant_folder_(parameters) {}

    /// The run's input `index`, of `sample`'s shape: [C,H,W] or [F].
    graph::Value input(std::size_t index, const graph::Shape& sample);

    /// Returns the program that writes `result`, in its own shape, to the run's output. No op may
    /// be added afterwards.
    Program finished(const graph::Value& result);

    graph::Shape shape(const graph::Value& x) const override;
    graph::Value conv2d(const graph::Value& x, const std::string& name,
                        const graph::Convolution& layer) override;
    graph::Value linear(const graph::Value& x, const std::string& name,
                        const graph::Linear& layer) override;
    graph::Value group_norm(const graph::Value& x, const std::string& name,
                            const graph::GroupNorm& layer) override;
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

    graph::Value layer_norm(const graph::Value&, const std::string&, double) override {
        throw UnsupportedOp();
    }
    graph::Value embedding(const graph::Value&, const std::string&, std::int64_t,
                           std::int64_t) override {
        throw UnsupportedOp();
    }
    graph::Value add_positions(const graph::Value&, const std::string&, std::int64_t) override {
        throw UnsupportedOp();
    }
    graph::Value token_attention(const graph::Value&, const graph::Value&, const graph::Value&,
                                 const graph::TokenAttention&) override {
        throw UnsupportedOp();
    }
    graph::Value gelu(const graph::Value&) override { throw UnsupportedOp(); }
    graph::Value quick_gelu(const graph::Value&) override { throw UnsupportedOp(); }
    graph::Value geglu(const graph::Value&) override { throw UnsupportedOp(); }
    graph::Value tokens(const graph::Value&) override { throw UnsupportedOp(); }
    graph::Value image(const graph::Value&, std::int64_t, std::int64_t) override {
        throw UnsupportedOp();
    }
    graph::Value pad_corner(const graph::Value&) override { throw UnsupportedOp(); }

private:
    /// One sample's pixels, or features as one pixel.
    struct Result {
        Program::Slot slot;
        std::int64_t channels, height = 1, width = 1;
        bool image = true;

        std::int64_t positions() const { return height * width; }
        std::int64_t elements() const { return channels * positions(); }
    };

    Result result(std::int64_t channels, std::int64_t height, std::int64_t width,
                  bool image = true);
    Result like(const Result& one) {
        return result(one.channels, one.height, one.width, one.image);
    }
    /// A value as a result; of a constant, each sample's row.
    Result read(const graph::Value& x);
    static bool is_constant(const graph::Value& x) { return std::any_cast<Tensor>(&x) != nullptr; }
    /// A parameter as float32; a one-dimensional one as a copy.
    Tensor parameter(const std::string& name) const;
    Result convolved(const Result& x, const Tensor& weight, const Tensor& bias,
                     const graph::Convolution& layer, bool image);
    void convolve_by_winograd(const Result& x, const Tensor& weight, const Tensor& bias,
                              const Result& y);
    Result sinusoids(const graph::Value& x, const Tensor& frequencies, bool sines_first);

    const Parameters& parameters_;
    TorchOps constant_folder_;  // computes ops on constants
    Program program_;
};

}  // namespace atelier::backends
