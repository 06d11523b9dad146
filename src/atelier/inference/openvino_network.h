#pragma once

#include <map>
#include <memory>
#include <string>

#include <openvino/runtime/compiled_model.hpp>

#include "atelier/inference/compiled_network.h"

namespace atelier::inference {

/// Whether OpenVINO computes in bfloat16 on this CPU, rather than only storing it.
bool cpu_computes_in_bfloat16();

/// Whether this CPU adds products of bytes up without overflow (VNNI or AMX on x86). Without, OpenVINO's int8 convolutions saturate, and answers are off by a tenth.
bool cpu_computes_in_int8();

/// A network that OpenVINO can compile.
struct Graphs {
    /// Writes it for a batch of `batch` samples.
    std::function<std::shared_ptr<ov::Model>(std::int64_t batch)> write;
    ov::element::Type precision;
    /// What the graphs are made of, in words that differ wherever graphs do. With them, compiled networks are kept in CompileCache::usual().
    std::string identity;
    /// Called when a graph was compiled: its weights are not looked at until the next one is written.
    std::function<void()> compiled;
};

/// A network compiled by OpenVINO for this CPU, once for each of the batch sizes 1, 4, 16 and 64, into which other batches are cut. One thread at
/// a time.
class OpenVinoNetwork : public CompiledNetwork {
public:
    explicit OpenVinoNetwork(Graphs graphs) : graphs_(std::move(graphs)) {}

    void in_pieces(std::int64_t samples, const Each& each) override;

    /// The same with each piece's request.
    void requests(std::int64_t samples, const std::function<void(ov::InferRequest&, std::int64_t first, std::int64_t count)>& run);

private:
    ov::InferRequest& request_for(std::int64_t batch);
    ov::CompiledModel compiled(std::int64_t batch) const;

    Graphs graphs_;
    std::map<std::int64_t, ov::InferRequest> requests_;  // by batch size
};

}  // namespace atelier::inference
