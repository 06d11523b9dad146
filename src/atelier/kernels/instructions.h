#pragma once

namespace atelier::kernels {

/// Instruction sets that the inner loops (norm_kernels.h, row_kernels.h, winograd_kernels.h) are
/// compiled for.
enum class Instructions { plain, avx2, avx512 };

/// The widest one that this processor supports.
Instructions best_instructions();

}  // namespace atelier::kernels
