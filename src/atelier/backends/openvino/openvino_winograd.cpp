#include "atelier/backends/openvino/openvino_winograd.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "atelier/backends/openvino/openvino_threads.h"
#include "atelier/core/hash.h"
#include "atelier/kernels/winograd_forward.h"

namespace atelier::backends {

namespace {

namespace loops = kernels::winograd_kernels;

using TransformedFilters = std::vector<float>;

/// The transformed filters of `weight` [O,I,3,3]; filters of equal weights exist once per process,
/// for as long as anyone holds them.
std::shared_ptr<const TransformedFilters> shared_filters(const ov::Tensor& weight) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<const TransformedFilters>>& cache =
        *new std::map<std::string, std::weak_ptr<const TransformedFilters>>;
    const auto out = static_cast<std::int64_t>(weight.get_shape()[0]),
               in = static_cast<std::int64_t>(weight.get_shape()[1]);
    const loops::Filters filters{in, out, 9, 9 * in};
    const auto* values = weight.data<const float>();
    const std::string key = std::to_string(out) + " " +
                            core::sha256(std::as_bytes(std::span(values, weight.get_size())));
    const std::lock_guard lock(mutex);
    if (auto found = cache[key].lock()) return found;
    std::erase_if(cache, [](const auto& one) { return one.second.expired(); });
    auto made = std::make_shared<TransformedFilters>(
        static_cast<std::size_t>(loops::points * filters.stride()));
    tbb_parallel_for(out / loops::panel, [&](std::int64_t i) {
        loops::best().transform_filters(filters, i * loops::panel, values, made->data());
    });
    cache[key] = made;
    return made;
}

}  // namespace

struct WinogradNode::State {
    std::once_flag once;
    std::shared_ptr<const TransformedFilters> filters;
};

std::shared_ptr<WinogradNode::State> WinogradNode::make_state() {
    return std::make_shared<State>();
}

WinogradNode::WinogradNode(const ov::OutputVector& inputs) : Op(inputs) {
    constructor_validate_and_infer_types();
}

void WinogradNode::validate_and_infer_types() {
    ov::PartialShape shape = get_input_partial_shape(0);
    shape[3] = get_input_partial_shape(1)[0];
    set_output_type(0, get_input_element_type(0), shape);
}

std::shared_ptr<ov::Node> WinogradNode::clone_with_new_inputs(
    const ov::OutputVector& inputs) const {
    return std::make_shared<WinogradNode>(inputs);
}

bool WinogradNode::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[0].get_shape(), weight = inputs[1].get_shape();
    const auto is_float = [](const auto& tensor) {
        return tensor.get_element_type() == ov::element::f32;
    };
    if (!std::ranges::all_of(inputs, is_float) || shape.size() != 4 || weight.size() != 4 ||
        weight[1] != shape[3] || weight[2] != 3 || weight[3] != 3)
        return false;
    if (weight[0] % loops::panel != 0 || weight[1] % loops::panel != 0 ||
        inputs[2].get_size() != weight[0])
        return false;
    const auto size = [](std::size_t value) { return static_cast<std::int64_t>(value); };
    const loops::Images s{size(shape[0]), size(shape[1]), size(shape[2]), size(shape[3]),
                          size(weight[0])};
    std::call_once(state_->once, [&] { state_->filters = shared_filters(inputs[1]); });
    static const loops::Table& table = loops::best();
    const float *x = inputs[0].data<const float>(), *bias = inputs[2].data<const float>(),
                *filters = state_->filters->data();
    auto* y = outputs[0].data<float>();
    loops::convolve_all(table, table.float32, s, tbb_threads(), tbb_parallel_for, x, filters, bias,
                        y);
    return true;
}

}  // namespace atelier::backends
