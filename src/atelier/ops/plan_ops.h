#pragma once

#include "atelier/ops/plan.h"
#include "atelier/ops/torch_ops.h"

namespace atelier::ops {

/// Speaks the vocabulary by writing a Plan: float32, channels innermost, 3x3 convolutions by Winograd's minimal filtering where that pays, weights as panels that are read once a
/// step. A value is a result of the plan, or a tensor, which is a table of known numbers: what follows from tables alone is computed at once, and where a table meets a result
/// each sample takes its row, as OpenVinoOps does. Copies what it needs of the parameters. Shapes are those of one sample, [1,...]. Throws Unspoken on what it has no words
/// for, core::Error on a parameter that is missing.
class PlanOps : public Ops {
public:
    struct Unspoken {};

    explicit PlanOps(const Parameters& parameters) : parameters_(parameters), known_(parameters) {}

    /// The run's input `number`, of `sample`'s shape: [C,H,W] or [F].
    Value input(std::size_t number, const Shape& sample);

    /// The plan that writes `result`, in the shape that it has here, to the run's output. Nothing is spoken after.
    Plan finished(const Value& result);

    Shape shape(const Value& x) const override;
    Value conv2d(const Value& x, const std::string& name, const Convolution& layer) override;
    Value linear(const Value& x, const std::string& name, const Linear& layer) override;
    Value group_norm(const Value& x, const std::string& name, const GroupNorm& layer) override;
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

    Value layer_norm(const Value&, const std::string&, double) override { throw Unspoken(); }
    Value embedding(const Value&, const std::string&, std::int64_t, std::int64_t) override { throw Unspoken(); }
    Value add_positions(const Value&, const std::string&, std::int64_t) override { throw Unspoken(); }
    Value token_attention(const Value&, const Value&, const Value&, const TokenAttention&) override { throw Unspoken(); }
    Value gelu(const Value&) override { throw Unspoken(); }
    Value quick_gelu(const Value&) override { throw Unspoken(); }
    Value geglu(const Value&) override { throw Unspoken(); }
    Value tokens(const Value&) override { throw Unspoken(); }
    Value image(const Value&, std::int64_t, std::int64_t) override { throw Unspoken(); }
    Value pad_corner(const Value&) override { throw Unspoken(); }

private:
    /// One sample's pixels, or features as one pixel.
    struct Result {
        Plan::Slot slot;
        std::int64_t channels, height = 1, width = 1;
        bool image = true;

        std::int64_t positions() const { return height * width; }
        std::int64_t numbers() const { return channels * positions(); }
    };

    Result result(std::int64_t channels, std::int64_t height, std::int64_t width, bool image = true);
    Result like(const Result& one) { return result(one.channels, one.height, one.width, one.image); }
    /// A value as a result: each sample's row of a table.
    Result read(const Value& x);
    static bool is_table(const Value& x) { return std::any_cast<Tensor>(&x) != nullptr; }
    /// A parameter as float32 numbers; one of a single axis as a copy.
    Tensor numbers(const std::string& name) const;
    Result convolved(const Result& x, const Tensor& weight, const Tensor& bias, const Convolution& layer, bool image);
    void convolve_by_winograd(const Result& x, const Tensor& weight, const Tensor& bias, const Result& y);
    Result waves(const Value& x, const Tensor& frequencies, bool sines_first);

    const Parameters& parameters_;
    TorchOps known_;  // computes what follows from tables alone
    Plan plan_;
};

}  // namespace atelier::ops
