#include "atelier/backends/torch/recorded_work.h"

#include <ATen/core/GraphImplInterface.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "atelier/backends/torch/error_message.h"
#include "atelier/core/log.h"

namespace atelier::backends {

/// The inputs' sizes and types, how often they came, and once they have been recorded the tensors
/// that the device reads and writes at each replay.
struct RecordedWork::Recording {
    std::vector<Tensor> inputs;  // until it is recorded, without memory
    int calls = 0;
    std::unique_ptr<at::GraphImplInterface> graph;
    Tensor result;

    bool fits(const std::vector<Tensor>& others) const {
        return std::ranges::equal(inputs, others, [](const Tensor& one, const Tensor& other) {
            if (!one.defined() || !other.defined()) return one.defined() == other.defined();
            return one.sizes() == other.sizes() && one.scalar_type() == other.scalar_type();
        });
    }
};

RecordedWork::RecordedWork(Function function) : function_(std::move(function)) {}
RecordedWork::~RecordedWork() = default;

RecordedWork::Recording& RecordedWork::recording_for(const std::vector<Tensor>& inputs) {
    const auto found = std::ranges::find_if(
        recordings_, [&](const Recording& recording) { return recording.fits(inputs); });
    if (found != recordings_.end()) {
        recordings_.splice(recordings_.begin(), recordings_, found);
    } else {
        if (recordings_.size() == most_kept) recordings_.pop_back();
        Recording& recording = recordings_.emplace_front();
        for (const Tensor& input : inputs) {
            recording.inputs.push_back(
                input.defined() ? at::empty(input.sizes(), input.options().device(at::kMeta))
                                : Tensor());
        }
    }
    return recordings_.front();
}

void RecordedWork::record(Recording& recording, const std::vector<Tensor>& inputs) {
    std::vector<Tensor> held;
    for (const Tensor& input : inputs)
        held.push_back(input.defined() ? input.clone(at::MemoryFormat::Contiguous) : Tensor());
    const at::Device device = inputs.front().device();
    const c10::impl::VirtualGuardImpl guard(device.type());
    auto graph = at::create_graph_impl(device.type());
    // CUDA records no work of its default stream.
    const c10::StreamGuard stream(guard.getStreamFromGlobalPool(device));
    // Replays of one function never overlap, and results are copied: they may share memory.
    const auto other = std::ranges::find_if(
        recordings_, [](const Recording& each) { return each.graph != nullptr; });
    graph->capture_begin(other == recordings_.end() ? at::MempoolId_t{0, 0} : other->graph->pool(),
                         at::GraphCaptureMode::ThreadLocal);
    try {
        recording.result = function_(held);
        graph->capture_end();
    } catch (...) {
        try {
            graph->capture_end();
        } catch (const std::exception&) {  // the first error says more
        }
        recording.result.reset();
        throw;
    }
    recording.inputs = std::move(held);
    recording.graph = std::move(graph);
}

Tensor RecordedWork::operator()(const std::vector<Tensor>& inputs) {
    const at::NoGradGuard no_gradients;
    const at::Device device = inputs.front().device();
    if (device.is_cpu()) return function_(inputs);
    // By name, and so once.
    std::call_once(looked_up_, [&] { device_records_ = at::has_graph_impl(device.type()); });
    if (!device_records_) return function_(inputs);
    const std::lock_guard one_at_a_time(busy_);
    if (!possible_) return function_(inputs);
    Recording& recording = recording_for(inputs);
    if (recording.graph == nullptr) {
        if (recording.calls++ < calls_before) return function_(inputs);
        try {
            record(recording, inputs);
        } catch (const std::exception& error) {
            possible_ = false;
            recordings_.clear();
            core::log::warning(
                "what {} computes cannot be recorded and replayed, so that every "
                "operation is launched by itself: {}",
                device.str(), error_message(error));
            return function_(inputs);
        }
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        if (inputs[i].defined()) recording.inputs[i].copy_(inputs[i], /*non_blocking=*/true);
    }
    recording.graph->replay();
    return recording.result.clone();
}

}  // namespace atelier::backends
