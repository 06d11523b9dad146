#include "atelier/backends/openvino/openvino_norm.h"

#include "atelier/backends/openvino/openvino_threads.h"
#include "atelier/kernels/norm_forward.h"
#include "atelier/kernels/workspace.h"

namespace atelier::backends {

namespace {

struct Rows {
    const float *weight, *bias;
    const std::int32_t* chosen;  // or null
    std::int64_t count;

    std::int64_t of(std::int64_t sample) const {
        return chosen ? chosen[sample] : count == 1 ? 0 : sample;
    }

    bool in_range(std::int64_t samples) const {
        if (!chosen) return count == 1 || count == samples;
        return std::all_of(chosen, chosen + samples,
                           [&](std::int32_t row) { return row >= 0 && row < count; });
    }
};

/// Results of type T, or int8 with `steps` per unit.
template <class T>
void normalise(const kernels::norm_kernels::Loops<T>& loops, const kernels::norm_kernels::Sample& s,
               std::int64_t samples, const T* x, const Rows& rows, float steps, void* y) {
    const std::int64_t each = s.positions * s.channels;
    kernels::norm_kernels::for_each_sample(
        samples, tbb_threads(), tbb_parallel_for, [&](std::int64_t i, const auto& for_each) {
            const float *weight = rows.weight + rows.of(i) * s.channels,
                        *bias = rows.bias + rows.of(i) * s.channels;
            float *mean = kernels::thread_workspace(kernels::norm_kernels::forward_workspace(s) +
                                                    static_cast<std::size_t>(2 * s.groups)),
                  *rstd = mean + s.groups, *work = rstd + s.groups;
            if (steps > 0) {
                kernels::norm_kernels::forward_quantised(
                    loops, s, x + i * each, weight, bias, steps,
                    static_cast<std::int8_t*>(y) + i * each, mean, rstd, work, for_each);
            } else {
                kernels::norm_kernels::forward(loops, s, x + i * each, weight, bias,
                                               static_cast<T*>(y) + i * each, mean, rstd, work,
                                               for_each);
            }
        });
}

}  // namespace

FusedNormNode::FusedNormNode(const ov::OutputVector& inputs, std::int64_t groups, double eps,
                             bool silu, float steps)
    : Op(inputs), groups_(groups), eps_(eps), silu_(silu), steps_(steps) {
    constructor_validate_and_infer_types();
}

std::shared_ptr<FusedNormNode> FusedNormNode::quantised(float steps) const {
    return std::make_shared<FusedNormNode>(input_values(), groups_, eps_, silu_, steps);
}

void FusedNormNode::validate_and_infer_types() {
    set_output_type(0, steps_ > 0 ? ov::element::Type(ov::element::i8) : get_input_element_type(0),
                    get_input_partial_shape(0));
}

std::shared_ptr<ov::Node> FusedNormNode::clone_with_new_inputs(
    const ov::OutputVector& inputs) const {
    return std::make_shared<FusedNormNode>(inputs, groups_, eps_, silu_, steps_);
}

bool FusedNormNode::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("groups", groups_);
    visitor.on_attribute("eps", eps_);
    visitor.on_attribute("silu", silu_);
    visitor.on_attribute("steps", steps_);
    return true;
}

bool FusedNormNode::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[0].get_shape();
    const auto size = [&](std::size_t axis) { return static_cast<std::int64_t>(shape[axis]); };
    const kernels::norm_kernels::Sample sample{size(1) * size(2), size(3), groups_,
                                               static_cast<float>(eps_), silu_};
    const Rows rows{inputs[1].data<const float>(), inputs[2].data<const float>(),
                    inputs.size() > 3 ? inputs[3].data<const std::int32_t>() : nullptr,
                    static_cast<std::int64_t>(inputs[1].get_shape()[0])};
    if (!rows.in_range(size(0))) return false;
    static const kernels::norm_kernels::Table& table = kernels::norm_kernels::best();
    const void* x = inputs[0].data();
    void* y = outputs[0].data();
    if (inputs[0].get_element_type() == ov::element::f32) {
        normalise(table.float32, sample, size(0), static_cast<const float*>(x), rows, steps_, y);
        return true;
    }
    if (inputs[0].get_element_type() == ov::element::bf16) {
        using kernels::norm_kernels::Bfloat16;
        normalise(table.bfloat16, sample, size(0), static_cast<const Bfloat16*>(x), rows, steps_,
                  y);
        return true;
    }
    return false;
}

}  // namespace atelier::backends
