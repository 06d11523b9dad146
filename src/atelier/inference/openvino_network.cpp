#include "atelier/inference/openvino_network.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <openvino/runtime/core.hpp>

#include "atelier/core/error.h"

namespace atelier::inference {

namespace {

ov::Core& core() {
    static ov::Core only;
    return only;
}

}  // namespace

ov::InferRequest& OpenVinoNetwork::request_for(std::int64_t batch) {
    const auto found = requests_.find(batch);
    if (found != requests_.end()) return found->second;
    const std::shared_ptr<ov::Model> graph = write_(batch);
    try {
        ov::CompiledModel compiled = inference::core().compile_model(
            graph, "CPU",
            {ov::hint::inference_precision(bfloat16_ ? ov::element::bf16 : ov::element::f32), ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
             ov::num_streams(1), ov::inference_num_threads(at::get_num_threads())});
        return requests_.emplace(batch, compiled.create_infer_request()).first->second;
    } catch (const ov::Exception& error) {
        core::fail("OpenVINO cannot compile this {}: {}", graph->get_friendly_name(), error.what());
    }
}

void OpenVinoNetwork::in_pieces(std::int64_t samples, const std::function<void(ov::InferRequest&, std::int64_t, std::int64_t)>& run) {
    for (std::int64_t first = 0; first < samples;) {
        const auto rest = static_cast<std::uint64_t>(std::min(samples - first, largest_piece));
        const auto count = static_cast<std::int64_t>(std::bit_floor(rest));
        run(request_for(count), first, count);
        first += count;
    }
}

}  // namespace atelier::inference
