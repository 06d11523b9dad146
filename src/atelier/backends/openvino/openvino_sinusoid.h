#pragma once

#include <openvino/op/op.hpp>

namespace atelier::backends {

/// Sines and cosines of x times frequencies, float32 whatever the graph's precision: OpenVINO's own
/// nodes compute in bfloat16 in a bfloat16 graph, where an angle of 500 is off by a radian. Inputs:
/// x [N] and frequencies [1,F], float32. Output: [N,2F] float32, cosines first or sines first.
class SinusoidNode : public ov::op::Op {
public:
    OPENVINO_OP("Waves", "atelier")

    SinusoidNode() = default;
    SinusoidNode(const ov::OutputVector& inputs, bool sines_first);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    bool sines_first_ = false;
};

}  // namespace atelier::backends
