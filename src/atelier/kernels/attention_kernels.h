#pragma once

#include <cstdint>

/// Inner loops of attention, except its matrix products (winograd_kernels::Table::multiply).
/// Torch-free; compiled for several instruction sets like norm_kernels.h.
namespace atelier::kernels::attention_kernels {

/// bfloat16 bits, so that the loops do not depend on torch.
using Bfloat16 = std::uint16_t;

/// The loops for input and output elements of type T; attention itself is computed in float32.
template <class T>
struct Loops {
    /// Splits a token into q, k and v, `count` elements each, which are interleaved in memory: q[i]
    /// = qkv[3i], k[i] = qkv[3i+1], v[i] = qkv[3i+2].
    void (*deinterleave)(std::int64_t count, const T* qkv, float* q, float* k, float* v);

    /// The inverse of deinterleave.
    void (*interleave)(std::int64_t count, const float* q, const float* k, const float* v, T* qkv);

    void (*read)(std::int64_t count, const T* from, float* to);
    void (*write)(std::int64_t count, const float* from, T* to);
};

struct Table {
    Loops<float> float32;
    Loops<Bfloat16> bfloat16;

    /// x = softmax(factor x), a row of `count` elements.
    void (*softmax)(std::int64_t count, float factor, float* x);

    /// The backward pass of softmax: from the gradients with respect to a row p of its results to
    /// those with respect to its input, in place: gradients = factor p (gradients - sum of p
    /// gradients).
    void (*softmax_backward)(std::int64_t count, float factor, const float* p, float* gradients);
};

/// Compilations of the loops; only `plain` runs on every processor.
extern const Table plain;
#ifdef ATELIER_X86_KERNELS
extern const Table avx2, avx512;
#endif

/// The fastest table that this processor can run.
const Table& best();

}  // namespace atelier::kernels::attention_kernels
