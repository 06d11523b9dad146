#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "atelier/backends/torch/torch.h"

namespace at {
struct GraphImplInterface;
}

namespace atelier::backends {

/// Work on an accelerator that is done again and again, such as one evaluation of a network. What
/// is launched on the device is recorded once for each set of shapes and then replayed: one launch
/// in place of some hundreds, which is what small batches wait for on a GPU. Where nothing can be
/// recorded (on CPUs; on GPUs without libatelier_cuda_graph.so) the function is called each time.
///
/// The function must compute on its inputs' device alone, wait for nothing, draw no random numbers,
/// and read besides its inputs only tensors that keep their place in memory. If it cannot be
/// recorded after all, one line in the log says why, and it is called from then on.
class RecordedWork {
public:
    using Function = std::function<Tensor(const std::vector<Tensor>& inputs)>;

    explicit RecordedWork(Function function);
    ~RecordedWork();
    RecordedWork(const RecordedWork&) = delete;
    RecordedWork& operator=(const RecordedWork&) = delete;

    /// What the function returns for the inputs: one or more, all on the first one's device, others
    /// may be undefined. The same bytes, recorded or not. Without gradients. Several threads may
    /// call; they take turns. Throws what the function throws.
    Tensor operator()(const std::vector<Tensor>& inputs);

    /// Calls with the same shapes before they are recorded, in which libraries choose their
    /// algorithms and constants are made.
    static constexpr int calls_before = 2;
    /// Sets of shapes that are kept; of further ones the one that has waited longest is forgotten.
    static constexpr std::size_t most_kept = 16;

private:
    struct Recording;
    Recording& recording_for(const std::vector<Tensor>& inputs);
    void record(Recording& recording, const std::vector<Tensor>& inputs);

    Function function_;
    std::mutex busy_;
    std::once_flag looked_up_;
    bool device_records_ = false, possible_ = true;
    std::list<Recording> recordings_;  // the one used last comes first
};

}  // namespace atelier::backends
