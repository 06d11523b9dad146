#pragma once

#include <functional>
#include <map>
#include <memory>

#include <openvino/runtime/infer_request.hpp>

namespace atelier::inference {

/// A network compiled by OpenVINO for this CPU, once for every batch size that it meets: powers of two up to `largest_piece`, into which other
/// batches are cut. One thread at a time.
class OpenVinoNetwork {
public:
    static constexpr std::int64_t largest_piece = 64;

    /// Writes the network as a graph for a batch of `batch` samples.
    using Writer = std::function<std::shared_ptr<ov::Model>(std::int64_t batch)>;

    OpenVinoNetwork(Writer write, bool bfloat16) : write_(std::move(write)), bfloat16_(bfloat16) {}

    /// Cuts `samples` samples into pieces and calls `run` with each piece's request, first sample and number of samples. Throws core::Error when
    /// OpenVINO cannot compile the network.
    void in_pieces(std::int64_t samples, const std::function<void(ov::InferRequest&, std::int64_t first, std::int64_t count)>& run);

private:
    ov::InferRequest& request_for(std::int64_t batch);

    Writer write_;
    bool bfloat16_;
    std::map<std::int64_t, ov::InferRequest> requests_;  // by batch size
};

}  // namespace atelier::inference
