#pragma once

#include <string>

namespace atelier::kernels::gpu {

/// What a test says to the stand-in for NVIDIA's driver, and learns from it; its function
/// fake_driver() returns it.
struct FakeDriver {
    std::string failing;  // the function that fails with CUDA_ERROR_UNKNOWN
    int contexts = 0;     // entered and not left
    int launches = 0;
    void* stream = nullptr;  // of the last launch
};

}  // namespace atelier::kernels::gpu
