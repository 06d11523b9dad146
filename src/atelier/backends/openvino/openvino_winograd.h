#pragma once

#include <openvino/op/op.hpp>

namespace atelier::backends {

/// A 3x3 convolution of stride 1 and padding 1 as a node of an OpenVINO graph, by
/// winograd_kernels.h. Inputs: x [N,H,W,I] float32, weight [O,I,3,3] float32, bias [O] float32;
/// sizes as required by winograd_kernels::pays. Output: [N,H,W,O]. The transformed filters, four
/// times the size of the weight, are computed at the first evaluation and shared by all nodes with
/// equal weights, such as those of one student's graphs for several batch sizes.
class WinogradNode : public ov::op::Op {
public:
    OPENVINO_OP("Winograd", "atelier")

    WinogradNode() = default;
    explicit WinogradNode(const ov::OutputVector& inputs);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor&) override { return true; }
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    struct State;
    std::shared_ptr<State> state_ = make_state();

    static std::shared_ptr<State> make_state();
};

}  // namespace atelier::backends
