#pragma once

#include <map>
#include <memory>
#include <string>

#include <openvino/runtime/compiled_model.hpp>

#include "atelier/inference/compiled_network.h"

namespace atelier::inference {

/// Whether OpenVINO computes in bfloat16 on this CPU, rather than only storing values in it.
bool cpu_computes_in_bfloat16();

/// Whether this CPU accumulates int8 products without overflow (VNNI or AMX on x86). Without,
/// OpenVINO's int8 convolutions saturate, and outputs are off by a tenth.
bool cpu_computes_in_int8();

/// A network that OpenVINO can compile.
struct GraphSource {
    /// Builds the graph for batches of `batch` samples.
    std::function<std::shared_ptr<ov::Model>(std::int64_t batch)> write;
    ov::element::Type precision;
    /// Identifies the graphs: differs whenever they do. When it is not empty, compiled networks are
    /// stored in CompileCache::default_cache().
    std::string identity;
    /// Called after a graph was compiled: weights are not accessed until the next one is built.
    std::function<void()> on_compiled;
};

/// A network compiled by OpenVINO for this CPU, on first use of each of the batch sizes 1, 4, 16
/// and 64, into which other batches are split. Not thread-safe.
class OpenVinoNetwork : public CompiledNetwork {
public:
    explicit OpenVinoNetwork(GraphSource source) : source_(std::move(source)) {}

    void for_each_batch(std::int64_t samples, const OnBatch& on_batch) override;

    /// The same with the inference request of each batch.
    void requests(
        std::int64_t samples,
        const std::function<void(ov::InferRequest&, std::int64_t first, std::int64_t count)>& run);

private:
    ov::InferRequest& request_for(std::int64_t batch);
    ov::CompiledModel compile(std::int64_t batch) const;

    GraphSource source_;
    std::map<std::int64_t, ov::InferRequest> requests_;  // by batch size
};

}  // namespace atelier::inference
