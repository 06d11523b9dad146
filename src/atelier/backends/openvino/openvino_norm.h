#pragma once

#include <openvino/op/op.hpp>

namespace atelier::backends {

/// Group normalisation with weight, bias and SiLU in one pass, as a node of an OpenVINO graph,
/// computed by our own loops: OpenVINO's own nodes take several passes and two layout conversions.
/// Inputs: x [N,H,W,C] float32 or bfloat16; weight and bias [R,C] float32; rows [N] int32, the row
/// that each sample takes. Without rows, R is 1 (shared by all samples) or N (one per sample).
/// Output: like x, or int8 (quantised).
class FusedNormNode : public ov::op::Op {
public:
    OPENVINO_OP("FusedNorm", "atelier")

    FusedNormNode() = default;
    FusedNormNode(const ov::OutputVector& inputs, std::int64_t groups, double eps, bool silu,
                  float steps = 0);

    /// The same node with int8 results, `steps` per unit: rounded and clamped to +-127.
    std::shared_ptr<FusedNormNode> quantised(float steps) const;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    std::int64_t groups_ = 1;
    double eps_ = 1e-5;
    bool silu_ = false;
    float steps_ = 0;  // 0: results have the type of x
};

}  // namespace atelier::backends
