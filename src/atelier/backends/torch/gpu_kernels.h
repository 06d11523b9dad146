#pragma once

#include <span>
#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/random_streams.h"
#include "atelier/kernels/gpu/launcher.h"

/// Our own kernels on CUDA devices (kernels/gpu), for tensors.
namespace atelier::backends {

/// Our kernels on `device`, which must exist; null for CPUs, and where they are not used. The first
/// call for a device compiles them, checks each against LibTorch's operations, and logs a line: a
/// warning with the reason where NVRTC is missing or a check fails. The variable
/// ATELIER_GPU_KERNELS=off turns them off.
const kernels::gpu::Launcher* gpu_kernels(at::Device device);

/// From now on gpu_kernels() returns `launcher`, which must outlive its uses, for devices of
/// `type`; null: what it returns by itself. For tests, whose accelerator is pretended.
void set_gpu_kernels(at::DeviceType type, const kernels::gpu::Launcher* launcher);

/// Runs every kernel on small data on `device` and compares it with LibTorch's operations there.
/// Returns what disagrees; empty: nothing.
std::string gpu_kernel_disagreement(const kernels::gpu::Launcher& launcher, at::Device device);

/// What one update of AdamW reads and writes. Tensors of one parameter have its shape and strides
/// and are float32; `copies` are bfloat16 and may be empty, as may be `averages`.
struct GpuAdamW {
    double beta1, beta2, weight_decay, eps;
    std::vector<Tensor> parameters, gradients, first_moments, second_moments, copies;
    std::vector<std::vector<Tensor>> averages;  // averages[k][i] is of parameter i
    std::vector<double> average_decays;         // one for each averages[k]
    Tensor step, rate;             // float32 scalars: the number of this update, from 1; the rate
    Tensor grad_scale, found_inf;  // float32 scalars as _fused_adamw_ takes them; may be undefined
};

/// One pass over memory for what _fused_adamw_, an interpolation for each average and a conversion
/// do; the host waits for nothing. Throws core::Error when the tensors are not as they must be.
void gpu_adamw(const kernels::gpu::Launcher& launcher, const GpuAdamW& update);

/// Normal numbers `first` to `first`+`count`-1 of each stream, to the bit, whatever it has drawn:
/// float32 [streams, count] on `device`.
Tensor gpu_normals(const kernels::gpu::Launcher& launcher, at::Device device,
                   std::span<const core::RandomStream> streams, std::int64_t first,
                   std::int64_t count);

}  // namespace atelier::backends
