#pragma once

#include <memory>

#include "atelier/core/error.h"
#include "atelier/kernels/gpu/compiler.h"

namespace atelier::kernels::gpu {

/// NVRTC as scripts/setup.sh test installs it, beside LibTorch; null where it is not.
inline const Compiler* compiler_here() {
    static const std::unique_ptr<const Compiler> compiler = [] {
        try {
            return std::make_unique<const Compiler>(
                nvrtc_candidates(std::filesystem::path(ATELIER_LIBTORCH_FOLDER) / "lib"));
        } catch (const core::Error&) {
            return std::unique_ptr<const Compiler>();
        }
    }();
    return compiler.get();
}

}  // namespace atelier::kernels::gpu
