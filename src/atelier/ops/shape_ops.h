#pragma once

#include "atelier/ops/ops.h"

namespace atelier::ops {

/// A parameter that a network reads.
struct ParameterSpec {
    std::string name;
    Shape shape;
    Init init;
    std::int64_t fan_in;
    double base = 0.0;  // constant added to the drawn value: 1 for the weights of norms
};

/// Speaks the vocabulary without computing: values are shapes. After a network has run through it, `parameters` lists what it
/// reads, in order, and `flops` the multiply-adds of its convolutions, linear layers and attention, counted as two operations.
/// Throws core::Error when shapes do not fit, naming the layer.
class ShapeOps : public Ops {
public:
    std::vector<ParameterSpec> parameters;
    double flops = 0;

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

private:
    void norm_parameters(const std::string& name, std::int64_t channels);
};

std::int64_t elements(const Shape& shape);

}  // namespace atelier::ops
