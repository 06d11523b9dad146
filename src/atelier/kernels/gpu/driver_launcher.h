#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "atelier/kernels/gpu/compiler.h"
#include "atelier/kernels/gpu/launcher.h"

namespace atelier::kernels::gpu {

/// Runs kernels on one GPU through NVIDIA's driver, which is opened at run time, in the context
/// that LibTorch uses as well (the device's primary one).
class DriverLauncher : public Launcher {
public:
    /// Compiles all programs for GPU number `device` of this process and loads them; they stay
    /// loaded. `stream` returns the stream to launch on, a CUstream. Throws core::Error when the
    /// driver, the GPU or NVRTC cannot be used.
    DriverLauncher(const Compiler& compiler, int device, std::function<void*()> stream,
                   const std::filesystem::path& driver = "libcuda.so.1");

    /// What the programs were compiled for, for example "sm_90".
    const std::string& architecture() const { return architecture_; }

protected:
    void launch_raw(std::string_view kernel, Grid grid, unsigned threads,
                    const void* arguments) const override;

private:
    struct Functions {
        int (*init)(unsigned flags);
        int (*device)(int* device, int number);
        int (*attribute)(int* value, int attribute, int device);
        int (*retain)(void** context, int device);
        int (*push)(void* context);
        int (*pop)(void** context);
        int (*load_module)(void** module, const void* image);
        int (*function)(void** function, void* module, const char* name);
        int (*launch)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                      unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                      void* stream, void** arguments, void** extra);
        int (*error)(int result, const char** text);
    };
    class InContext;

    void open(const std::filesystem::path& driver);
    void check(int result, std::string_view task) const;
    int attribute(int which, int device) const;

    Functions call_{};
    void* context_ = nullptr;
    std::string architecture_;
    std::map<std::string, void*, std::less<>> functions_;
    std::function<void*()> stream_;
};

}  // namespace atelier::kernels::gpu
