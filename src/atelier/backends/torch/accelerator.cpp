#include "atelier/backends/torch/accelerator.h"

#include <cstdlib>

#include "atelier/backends/torch/torch.h"

namespace atelier::backends {

void configure_accelerators(const AcceleratorSettings& settings) {
    at::Context& context = at::globalContext();
    context.setFloat32MatmulPrecision(settings.tf32 ? "high" : "highest");
    context.setAllowTF32CuBLAS(settings.tf32);
    context.setAllowTF32CuDNN(settings.tf32);
    context.setBenchmarkCuDNN(!settings.deterministic);
    context.setDeterministicCuDNN(settings.deterministic);
    context.setDeterministicAlgorithms(settings.deterministic, /*warn_only=*/true);
    // Filling what will be overwritten finds mistakes, and costs time.
    context.setDeterministicFillUninitializedMemory(false);
    // Without this cuBLAS shares workspaces between streams and may differ from run to run.
    if (settings.deterministic) ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
}

}  // namespace atelier::backends
