#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/parallel/group.h"
#include "atelier/parallel/monitor.h"
#include "atelier/parallel/place.h"
#include "atelier/parallel/rank_lost.h"

namespace atelier::parallel {

/// This process among those that train one student together, or alone. What is called an operation
/// here is called by all ranks, in the same order; it throws RankLost, or ends the process with
/// exit code 75, where another rank is gone.
class Ranks {
public:
    /// Alone.
    Ranks();
    /// Meets the others. Throws RankLost where they do not come.
    explicit Ranks(const Place& place);
    ~Ranks();
    Ranks(const Ranks&) = delete;
    Ranks& operator=(const Ranks&) = delete;

    /// The one of a process that is alone.
    static Ranks& alone();

    int rank() const { return place_.rank; }
    int world() const { return place_.world; }
    bool is_alone() const { return place_.alone(); }
    /// Rank 0 writes files, measures and speaks.
    bool leads() const { return place_.rank == 0; }
    /// The number of this process among those of its machine.
    int local_rank() const { return local_rank_; }
    /// "4 ranks on 2 machines, started by torchrun, over Gloo": for the log.
    std::string description() const;

    /// Operation: sums of tensors on this process's `device` go over NCCL from now on where all
    /// ranks have a GPU and the module of NCCL; otherwise they are copied to the host, and the log
    /// says why.
    void use_device(const at::Device& device);

    /// Operation: the sum of `values` [N] over ranks in their place, on whatever device they are.
    void sum(Tensor& values);
    /// Operation: `values` [N] of rank `from`, in their place.
    void broadcast(Tensor& values, int from = 0);
    double broadcast(double value);
    /// Operation: the `row` [N] of every rank, [ranks, N], on the CPU.
    Tensor gather(const Tensor& row);
    /// Operation: the bytes of every rank.
    std::vector<std::string> gather(const std::string& bytes);
    /// Operation: rank 0's text.
    std::string from_leader(const std::string& text);
    /// Operation: the smallest value of any rank.
    std::int64_t smallest(std::int64_t value);
    /// Operation: all have come here.
    void barrier();

    /// Rank 0 calls `make`; the others wait until it has, and call it then, when they find on disk
    /// what it made. No operation: rank 0 may be here long before or after the others. `name` is
    /// the work's own.
    template <class Make>
    auto leader_first(const std::string& name, const Make& make) {
        if (!leads()) await(name);
        auto made = make();
        if (leads()) announce(name);
        return made;
    }

    /// What this process is doing, for messages; the checkpoint's function is called on another
    /// thread.
    void set_position(Position position);

    /// Says how this process ends; the others end then, if they have not, with the same code.
    void leave(int code, const std::string& why);

private:
    struct Company;
    void announce(const std::string& event);
    void await(const std::string& event);
    template <class Operation>
    void together(const Operation& operation);
    /// Calls an operation of a group that takes `values` where they are, or with a copy on the
    /// host, which then replaces them.
    template <class Operation>
    void call(const Operation& operation, Tensor& values);

    Place place_;
    int local_rank_ = 0, machines_ = 1;
    std::int64_t row_bytes_ = 1024;  // of the bytes gathered at once
    std::unique_ptr<Company> company_;
};

/// Calls `work` and tells the other ranks how it ended.
void as_rank(Ranks& ranks, const std::function<void()>& work);

}  // namespace atelier::parallel
