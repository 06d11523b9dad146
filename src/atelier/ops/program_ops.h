#pragma once

#include "atelier/ops/program.h"
#include "atelier/ops/torch_ops.h"

namespace atelier::ops {

/// Lowers the op set to a Program: float32, channels innermost, 3x3 convolutions by Winograd's
/// minimal filtering where that pays, weights as panels that are read once per step. A value is a
/// result of the program, or a tensor, which is a constant: ops on constants alone are folded as
/// they are added, and where a constant meets a result each sample takes its row, as in
/// OpenVinoOps. Copies the parameters that it needs. Shapes are those of one sample, [1,...].
/// Throws UnsupportedOp on ops and inputs that it does not support, core::Error on a missing
/// parameter.
class ProgramOps : public Ops {
public:
    struct UnsupportedOp {};

    explicit ProgramOps(const Parameters& parameters)
        : parameters_(parameters), constant_folder_(parameters) {}

    /// The run's input `index`, of `sample`'s shape: [C,H,W] or [F].
    Value input(std::size_t index, const Shape& sample);

    /// Returns the program that writes `result`, in its own shape, to the run's output. No op may
    /// be added afterwards.
    Program finished(const Value& result);

    Shape shape(const Value& x) const override;
    Value conv2d(const Value& x, const std::string& name, const Convolution& layer) override;
    Value linear(const Value& x, const std::string& name, const Linear& layer) override;
    Value group_norm(const Value& x, const std::string& name, const GroupNorm& layer) override;
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

    Value layer_norm(const Value&, const std::string&, double) override { throw UnsupportedOp(); }
    Value embedding(const Value&, const std::string&, std::int64_t, std::int64_t) override {
        throw UnsupportedOp();
    }
    Value add_positions(const Value&, const std::string&, std::int64_t) override {
        throw UnsupportedOp();
    }
    Value token_attention(const Value&, const Value&, const Value&,
                          const TokenAttention&) override {
        throw UnsupportedOp();
    }
    Value gelu(const Value&) override { throw UnsupportedOp(); }
    Value quick_gelu(const Value&) override { throw UnsupportedOp(); }
    Value geglu(const Value&) override { throw UnsupportedOp(); }
    Value tokens(const Value&) override { throw UnsupportedOp(); }
    Value image(const Value&, std::int64_t, std::int64_t) override { throw UnsupportedOp(); }
    Value pad_corner(const Value&) override { throw UnsupportedOp(); }

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
    Result read(const Value& x);
    static bool is_constant(const Value& x) { return std::any_cast<Tensor>(&x) != nullptr; }
    /// A parameter as float32; a one-dimensional one as a copy.
    Tensor parameter(const std::string& name) const;
    Result convolved(const Result& x, const Tensor& weight, const Tensor& bias,
                     const Convolution& layer, bool image);
    void convolve_by_winograd(const Result& x, const Tensor& weight, const Tensor& bias,
                              const Result& y);
    Result sinusoids(const Value& x, const Tensor& frequencies, bool sines_first);

    const Parameters& parameters_;
    TorchOps constant_folder_;  // computes ops on constants
    Program program_;
};

}  // namespace atelier::ops
