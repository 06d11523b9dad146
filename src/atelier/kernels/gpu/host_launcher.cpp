#include "atelier/kernels/gpu/host_launcher.h"

#include <cstring>
#include <memory>

#include "atelier/core/error.h"
#include "atelier/kernels/gpu/adamw_kernels.h"
#include "atelier/kernels/gpu/group_norm_kernels.h"
#include "atelier/kernels/gpu/normal_kernels.h"

namespace atelier::kernels::gpu {

namespace {

using Order = HostLauncher::Order;

template <class Function>
void for_each_of(unsigned count, Order order, const Function& function) {
    for (unsigned i = 0; i < count; ++i)
        function(static_cast<int>(order == Order::forward ? i : count - 1 - i));
}

template <class Kernel, int phase>
void run_phases_from(const typename Kernel::Arguments& arguments, Place place, Order order,
                     typename Kernel::Shared& shared) {
    for_each_of(Kernel::threads, order, [&](int thread) {
        place.thread = thread;
        Kernel::template run<phase>(arguments, place, shared);
    });
    if constexpr (phase + 1 < Kernel::phases)
        run_phases_from<Kernel, phase + 1>(arguments, place, order, shared);
}

template <class Kernel>
void run_on_host(Grid grid, unsigned threads, const void* arguments, Order order) {
    if (threads != Kernel::threads)
        core::fail("the kernel has blocks of {} threads, not {}", int{Kernel::threads}, threads);
    const auto& known = *static_cast<const typename Kernel::Arguments*>(arguments);
    const auto shared = std::make_unique<typename Kernel::Shared>();
    for_each_of(grid.z, order, [&](int z) {
        for_each_of(grid.y, order, [&](int y) {
            for_each_of(grid.x, order, [&](int x) {
                // Floats that no thread wrote are NaN.
                std::memset(static_cast<void*>(shared.get()), 0xff, sizeof *shared);
                run_phases_from<Kernel, 0>(known, {0, x, y, z}, order, *shared);
            });
        });
    });
}

struct HostKernel {
    std::string_view name;
    void (*run)(Grid, unsigned, const void*, Order);
};

#define ATELIER_HOST_KERNEL(name, ...) {#name, run_on_host<__VA_ARGS__>},

constexpr HostKernel host_kernels[]{ATELIER_GROUP_NORM_KERNELS(ATELIER_HOST_KERNEL)
                                        ATELIER_ADAMW_KERNELS(ATELIER_HOST_KERNEL)
                                            ATELIER_NORMAL_KERNELS(ATELIER_HOST_KERNEL)};

#undef ATELIER_HOST_KERNEL

}  // namespace

void HostLauncher::launch_raw(std::string_view kernel, Grid grid, unsigned threads,
                              const void* arguments) const {
    for (const HostKernel& known : host_kernels) {
        if (known.name == kernel) return known.run(grid, threads, arguments, order_);
    }
    core::fail("there is no kernel {}", kernel);
}

}  // namespace atelier::kernels::gpu
