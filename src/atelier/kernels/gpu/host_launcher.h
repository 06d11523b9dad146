#pragma once

#include "atelier/kernels/gpu/launcher.h"

namespace atelier::kernels::gpu {

/// Runs kernels on the CPU, block after block, phase after phase and thread after thread, for
/// tests; pointers are the host's. What a GPU computes differs by the rounding of its sigmoid and
/// by contracted products and sums, except for NormalNumbers, which has neither.
class HostLauncher : public Launcher {
public:
    enum class Order { forward, backward };

    /// The order of blocks and threads, on which no result may depend.
    explicit HostLauncher(Order order = Order::forward) : order_(order) {}

protected:
    void launch_raw(std::string_view kernel, Grid grid, unsigned threads,
                    const void* arguments) const override;

private:
    Order order_;
};

}  // namespace atelier::kernels::gpu
