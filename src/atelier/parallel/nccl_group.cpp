#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "atelier/parallel/nccl_module.h"

// A module of its own, libatelier_nccl.so, since it needs NVIDIA's headers to be built and
// libtorch_cuda to be opened, which the program itself does without.
namespace atelier::parallel {

namespace {

/// Operations are queued on the device's current stream: that stream waits, not the host.
class NcclGroup : public Group {
public:
    NcclGroup(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world) {
        auto options = c10d::ProcessGroupNCCL::Options::create();
        options->timeout = operation_timeout;
        nccl_ = c10::make_intrusive<c10d::ProcessGroupNCCL>(
            c10::make_intrusive<c10d::PrefixStore>("nccl", store), rank, world, options);
    }

    std::string name() const override { return "NCCL"; }
    bool takes(at::DeviceType device) const override { return device == at::kCUDA; }

    void sum(Tensor values) override {
        std::vector<Tensor> one{std::move(values)};
        nccl_->allreduce(one)->wait();
    }
    void broadcast(Tensor values, int from) override {
        std::vector<Tensor> one{std::move(values)};
        c10d::BroadcastOptions options;
        options.rootRank = from;
        nccl_->broadcast(one, options)->wait();
    }
    Tensor gather(const Tensor& row) override {
        Tensor rows = at::empty({nccl_->getSize() * row.numel()}, row.options()), mine = row;
        nccl_->_allgather_base(rows, mine)->wait();
        return rows.view({nccl_->getSize(), row.numel()});
    }

private:
    c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl_;
};

}  // namespace

}  // namespace atelier::parallel

extern "C" atelier::parallel::Group* atelier_make_nccl_group(
    const c10::intrusive_ptr<c10d::Store>* store, int rank, int world) {
    return new atelier::parallel::NcclGroup(*store, rank, world);
}
