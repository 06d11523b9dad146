#pragma once

#include <openvino/op/op.hpp>

namespace atelier::ops {

/// Group normalisation with gain, offset and SiLU in one pass, as a node of an OpenVINO graph, computed by our own loops: OpenVINO's own parts take
/// several passes and two re-orderings. Inputs: x [N,H,W,C] float32 or bfloat16; gain and offset [R,C] float32; rows [N] int32, the row that each
/// sample takes. Without rows, R is 1 (for all samples) or N (in order). Output: as x, or int8 (quantised).
class FusedNormNode : public ov::op::Op {
public:
    OPENVINO_OP("FusedNorm", "atelier")

    FusedNormNode() = default;
    FusedNormNode(const ov::OutputVector& inputs, std::int64_t groups, double eps, bool silu, float steps = 0);

    /// The same node with results in int8, `steps` to a unit: rounded, and held within +-127.
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
    float steps_ = 0;  // 0: results as x
};

}  // namespace atelier::ops
