#include "atelier/backends/torch/transfer.h"

namespace atelier::backends {

Tensor to_device(const Tensor& tensor, at::Device device) {
    if (device.is_cpu() || !tensor.is_cpu()) return tensor.to(device);
    // LibTorch keeps pinned memory until the copies from it are done.
    return tensor.contiguous().pin_memory().to(device, /*non_blocking=*/true);
}

Tensor DeviceConstant::on(at::Device device, std::optional<at::ScalarType> type) const {
    const at::ScalarType chosen = type.value_or(of_host_.scalar_type());
    const Key key{chosen, {device.type(), device.index()}};
    const std::lock_guard lock(mutex_);
    Tensor& copy = copies_[key];
    if (!copy.defined()) copy = to_device(of_host_.to(chosen), device);
    return copy;
}

}  // namespace atelier::backends
