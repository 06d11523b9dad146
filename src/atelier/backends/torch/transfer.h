#pragma once

#include <map>
#include <mutex>

#include "atelier/backends/torch/torch.h"

namespace atelier::backends {

/// `tensor` on `device`. From the host to an accelerator it is copied through pinned memory, so
/// that the host goes on without waiting for what the device still computes.
Tensor to_device(const Tensor& tensor, at::Device device);

/// A constant that is computed on the host, and copied to each device once. Safe to use from
/// several threads. Meant to be static: the copies are never freed, since at the end of a process
/// the device's library may be gone before them.
class DeviceConstant {
public:
    explicit DeviceConstant(Tensor of_host) : of_host_(std::move(of_host)) {}

    /// On a device, as `type`; without a type as it is on the host.
    Tensor on(at::Device device, std::optional<at::ScalarType> type = std::nullopt) const;

private:
    using Key = std::pair<at::ScalarType, std::pair<at::DeviceType, at::DeviceIndex>>;

    Tensor of_host_;
    mutable std::mutex mutex_;
    std::map<Key, Tensor>& copies_ = *new std::map<Key, Tensor>;
};

}  // namespace atelier::backends
