#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace atelier::inference {

/// Reads "cpu", "cuda" or "cuda:N", whether or not it is here. Throws core::UsageError on anything else.
at::Device named_device(const std::string& name);

/// The same, and throws core::UsageError when it is not here, saying whether LibTorch, the driver or the GPU is missing.
/// LibTorch's CUDA part is loaded when it is first asked for, so that nothing is linked against it.
at::Device device_of(const std::string& name);

/// Whether device_of would return.
bool has_device(const std::string& name);

/// What is known of CUDA on this machine.
struct CudaFacts {
    bool built = false;         // LibTorch is a build for CUDA
    std::string not_loaded;     // why its CUDA part could not be loaded, in the loader's words
    bool driver = false;        // NVIDIA's driver can be loaded
    std::string driver_refuses; // why it cannot be used, where it can be loaded
    int devices = 0;            // that the driver sees
    bool used = false;          // LibTorch found a device too
};

/// Why device `index` of such a machine cannot be used and what to do about it; empty where it can.
std::string why_no_cuda(const CudaFacts& facts, int index);

}  // namespace atelier::inference
