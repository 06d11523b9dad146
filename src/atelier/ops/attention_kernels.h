#pragma once

#include <cstdint>

/// Inner loops of attention, besides its products (winograd_kernels::Table::multiply). Torch-free; compiled for several instruction sets as norm_kernels.h is.
namespace atelier::ops::attention_kernels {

/// bfloat16 bits, so that the loops need nothing of torch.
using Bfloat16 = std::uint16_t;

/// The loops for numbers of type T outside; what attention computes with is float32.
template <class T>
struct Loops {
    /// A token's q, k and v, `count` numbers each, from where they lie interleaved: q[i] = qkv[3i], k[i] = qkv[3i+1], v[i] = qkv[3i+2].
    void (*take_apart)(std::int64_t count, const T* qkv, float* q, float* k, float* v);

    /// And back.
    void (*put_together)(std::int64_t count, const float* q, const float* k, const float* v, T* qkv);

    void (*read)(std::int64_t count, const T* from, float* to);
    void (*write)(std::int64_t count, const float* from, T* to);
};

struct Table {
    Loops<float> float32;
    Loops<Bfloat16> bfloat16;

    /// x = softmax(factor x), a row of `count` numbers.
    void (*softmax)(std::int64_t count, float factor, float* x);

    /// From the slopes on a row of softmax's results p to those on its x: slopes = factor p (slopes - sum of p slopes).
    void (*softmax_slopes)(std::int64_t count, float factor, const float* p, float* slopes);
};

/// Compilations of the loops; only `plain` runs on every processor.
extern const Table plain;
#ifdef ATELIER_X86_KERNELS
extern const Table avx2, avx512;
#endif

/// The fastest table that this processor can run.
const Table& best();

}  // namespace atelier::ops::attention_kernels
