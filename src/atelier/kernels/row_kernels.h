#pragma once

#include <cstdint>

/// Inner loops of the ops between a program's products. Torch-free, float32; compiled for several
/// instruction sets like norm_kernels.h.
namespace atelier::kernels::row_kernels {

struct Table {
    /// y = x sigmoid(x)
    void (*silu)(std::int64_t count, const float* x, float* y);

    /// y = factor (a + b)
    void (*add)(std::int64_t count, const float* a, const float* b, float factor, float* y);

    /// y = sum of weights[i] x[i], the rows of `terms` pixels, each of `count` elements.
    void (*weighted_sum)(std::int64_t count, std::int64_t terms, const float* const* x,
                         const float* weights, float* y);

    /// sums[c] = sum over `count` pixels of x - from[c], sums[channels+c] = that of its square.
    void (*moments)(std::int64_t count, std::int64_t channels, const float* x, const float* from,
                    float* sums);
};

/// Compilations of the loops; only `plain` runs on every processor.
extern const Table plain;
#ifdef ATELIER_X86_KERNELS
extern const Table avx2, avx512;
#endif

/// The fastest table that this processor can run.
const Table& best();

}  // namespace atelier::kernels::row_kernels
