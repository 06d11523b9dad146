#pragma once

#include <string_view>

/// Kernels for GPUs without a CUDA toolkit: sources that NVRTC compiles at run time and the host's
/// compiler for tests. Torch-free; the caller owns all memory.
namespace atelier::kernels::gpu {

/// How many blocks there are in each direction.
struct Grid {
    unsigned x = 1, y = 1, z = 1;
};

/// Runs kernels by name.
class Launcher {
public:
    virtual ~Launcher() = default;

    /// Runs `kernel` with `threads` threads in each block of `grid`, after everything that was
    /// launched before; pointers in its Arguments, which are copied before this returns, must be
    /// valid where the kernel runs. Throws core::Error when there is no such kernel or it cannot be
    /// launched.
    template <class Arguments>
    void launch(std::string_view kernel, Grid grid, int threads, const Arguments& arguments) const {
        launch_raw(kernel, grid, static_cast<unsigned>(threads), &arguments);
    }

protected:
    virtual void launch_raw(std::string_view kernel, Grid grid, unsigned threads,
                            const void* arguments) const = 0;
};

}  // namespace atelier::kernels::gpu
