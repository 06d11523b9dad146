#pragma once

#include <openvino/op/op.hpp>

namespace atelier::ops {

/// Sines and cosines of numbers times frequencies, float32 whatever the graph's precision: OpenVINO's own nodes take bfloat16 in a bfloat16 graph,
/// where an angle of 500 is off by a radian. Inputs: numbers [N] and frequencies [1,F], float32. Output: [N,2F] float32, cosines first or sines.
class WavesNode : public ov::op::Op {
public:
    OPENVINO_OP("Waves", "atelier")

    WavesNode() = default;
    WavesNode(const ov::OutputVector& inputs, bool sines_first);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    bool sines_first_ = false;
};

}  // namespace atelier::ops
