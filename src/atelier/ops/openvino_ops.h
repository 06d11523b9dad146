#pragma once

#include <openvino/core/model.hpp>

#include "atelier/ops/ops.h"
#include "atelier/ops/parameters.h"

namespace atelier::ops {

/// A node of an OpenVINO graph as a value of the vocabulary.
Value value_of(const ov::Output<ov::Node>& node);
ov::Output<ov::Node> node_of(const Value& value);

/// A view of a contiguous float32 tensor on the CPU, whose memory it shares.
ov::Tensor view_of(const Tensor& tensor);

/// Speaks the vocabulary by writing an OpenVINO graph. Shapes are static. Weights are constants that look into `parameters` (float32, on the
/// CPU), which must outlive the graph. Values come from value_of(). Throws core::Error on a parameter that is missing.
class OpenVinoOps : public Ops {
public:
    explicit OpenVinoOps(const Parameters& parameters, std::string prefix = "");

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
    Value sinusoid(const Value& x, std::int64_t width) override;
    Value pixel_unshuffle(const Value& x, std::int64_t factor) override;
    Value pixel_shuffle(const Value& x, std::int64_t factor) override;
    Value global_average(const Value& x) override;

private:
    /// A parameter as a constant of its own shape, or of another with as many numbers.
    ov::Output<ov::Node> constant(const std::string& name, const Shape& shape = {}) const;

    const Parameters& parameters_;
    std::string prefix_;
};

}  // namespace atelier::ops
