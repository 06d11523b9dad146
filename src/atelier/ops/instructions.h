#pragma once

namespace atelier::ops {

/// Instruction sets that the inner loops (norm_kernels.h, row_kernels.h, winograd_kernels.h) are
/// compiled for.
enum class Instructions { plain, avx2, avx512 };

/// The widest one that this processor supports.
Instructions best_instructions();

/// Whether LibTorch computes bfloat16 convolutions with this processor's own instructions. Where it
/// does not, they take about ten times as long as in float32.
bool cpu_trains_in_bfloat16();

}  // namespace atelier::ops
