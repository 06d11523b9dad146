#pragma once

#include <utility>

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "atelier/parallel/group.h"

namespace atelier::parallel {

/// A Group by one of c10d's backends. Each operation waits until its result may be used: on the
/// host, or by the device's current stream.
class C10dGroup : public Group {
public:
    explicit C10dGroup(c10::intrusive_ptr<c10d::Backend> backend) : backend_(std::move(backend)) {}

    void sum(Tensor values) override {
        std::vector<Tensor> one{std::move(values)};
        backend_->allreduce(one)->wait();
    }
    void broadcast(Tensor values, int from) override {
        std::vector<Tensor> one{std::move(values)};
        c10d::BroadcastOptions options;
        options.rootRank = from;
        backend_->broadcast(one, options)->wait();
    }
    Tensor gather(const Tensor& row) override {
        Tensor rows = at::empty({backend_->getSize() * row.numel()}, row.options()), mine = row;
        backend_->_allgather_base(rows, mine)->wait();
        return rows.view({backend_->getSize(), row.numel()});
    }

private:
    c10::intrusive_ptr<c10d::Backend> backend_;
};

}  // namespace atelier::parallel
