#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "atelier/parallel/c10d_group.h"
#include "atelier/parallel/nccl_module.h"

// A module of its own, libatelier_nccl.so, since it needs NVIDIA's headers to be built and
// libtorch_cuda to be opened, which the program itself does without.
namespace atelier::parallel {

namespace {

c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>& store,
                                               int rank, int world) {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = operation_timeout;
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(
        c10::make_intrusive<c10d::PrefixStore>("nccl", store), rank, world, options);
}

/// Operations are queued on the device's current stream: that stream waits, not the host.
class NcclGroup : public C10dGroup {
public:
    using C10dGroup::C10dGroup;

    std::string name() const override { return "NCCL"; }
    bool takes(at::DeviceType device) const override { return device == at::kCUDA; }
};

}  // namespace

}  // namespace atelier::parallel

extern "C" atelier::parallel::Group* atelier_make_nccl_group(
    const c10::intrusive_ptr<c10d::Store>* store, int rank, int world) {
    return new atelier::parallel::NcclGroup(atelier::parallel::nccl_backend(*store, rank, world));
}
