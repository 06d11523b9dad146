#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace atelier::inference {

/// Parses "cpu", "cuda" or "cuda:N", whether or not the device exists, and the name of a backend
/// that a library has registered with LibTorch (PrivateUse1). Throws core::UsageError on anything
/// else.
at::Device named_device(const std::string& name);

/// The same for a device that must exist: throws core::UsageError saying whether LibTorch's CUDA
/// library, the driver or the GPU is missing. LibTorch's CUDA library is loaded on first use, so
/// that nothing is linked against it.
at::Device device_of(const std::string& name);

/// Whether device_of would succeed.
bool has_device(const std::string& name);

/// Bytes of memory of a device that exists; 0 where that is not known, as of the CPU.
double memory_of(const std::string& name);

/// How many GPUs LibTorch can use here.
int usable_gpus();

/// The device of the `number`-th of several processes that share this machine: where "cuda" is
/// asked for, `gpus` GPUs in turn ("cuda:1"); any other device is taken at its word.
std::string device_of_process(const std::string& name, std::int64_t number, int gpus);

/// The state of CUDA on this machine.
struct CudaFacts {
    bool built = false;        // LibTorch is a CUDA build
    std::string load_error;    // the loader's error when its CUDA library could not be loaded
    bool driver = false;       // NVIDIA's driver can be loaded
    std::string driver_error;  // why it cannot be used although it can be loaded
    int devices = 0;           // number that the driver sees
    bool usable = false;       // LibTorch found a device too
};

/// Why device `index` of such a machine cannot be used and how to fix it; empty when it can be.
std::string cuda_problem(const CudaFacts& facts, int index);

}  // namespace atelier::inference
