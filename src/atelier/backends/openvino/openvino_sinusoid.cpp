#include "atelier/backends/openvino/openvino_sinusoid.h"

#include <cmath>

namespace atelier::backends {

SinusoidNode::SinusoidNode(const ov::OutputVector& inputs, bool sines_first)
    : Op(inputs), sines_first_(sines_first) {
    constructor_validate_and_infer_types();
}

void SinusoidNode::validate_and_infer_types() {
    const auto values = get_input_partial_shape(0), frequencies = get_input_partial_shape(1);
    set_output_type(0, ov::element::f32, {values[0], frequencies[1] * ov::Dimension(2)});
}

std::shared_ptr<ov::Node> SinusoidNode::clone_with_new_inputs(
    const ov::OutputVector& inputs) const {
    return std::make_shared<SinusoidNode>(inputs, sines_first_);
}

bool SinusoidNode::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("sines_first", sines_first_);
    return true;
}

bool SinusoidNode::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    if (inputs[0].get_element_type() != ov::element::f32 ||
        inputs[1].get_element_type() != ov::element::f32)
        return false;
    const std::size_t half = inputs[1].get_size();
    const float* frequencies = inputs[1].data<const float>();
    float* out = outputs[0].data<float>();
    for (std::size_t i = 0; i < inputs[0].get_size(); ++i, out += 2 * half) {
        const float x = inputs[0].data<const float>()[i];
        float *sines = sines_first_ ? out : out + half, *cosines = sines_first_ ? out + half : out;
        for (std::size_t j = 0; j < half; ++j) {
            const float angle = x * frequencies[j];
            sines[j] = std::sin(angle);
            cosines[j] = std::cos(angle);
        }
    }
    return true;
}

}  // namespace atelier::backends
