#pragma once

namespace atelier::ops {

/// Instruction sets that the inner loops (norm_kernels.h, winograd_kernels.h) are compiled for.
enum class Instructions { plain, avx2, avx512 };

/// The widest that this processor has.
Instructions best_instructions();

}  // namespace atelier::ops
