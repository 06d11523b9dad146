#pragma once

#include <cstdint>

/// Inner loops of the fused normalisation, one sample at a time, channels innermost (NHWC). Torch-free; compiled for several instruction
/// sets of which `best` picks one at run time.
namespace atelier::ops::norm_kernels {

/// Sizes of one sample: `positions` = H*W, `channels` a multiple of `groups`.
struct Sample {
    std::int64_t positions, channels, groups;
    float eps;
    bool silu;
};

/// bfloat16 bits, so that the loops need nothing of torch.
using Bfloat16 = std::uint16_t;

/// The loops for numbers of type T. Where they say `count`, that many positions of `channels` numbers each.
template <class T>
struct Loops {
    /// sums[c] = sum over positions of x - centre[c].
    void (*sum)(std::int64_t count, std::int64_t channels, const T* x, const float* centre, float* sums);

    /// sums[c] = sum over positions of (x - centre[c])^2.
    void (*sum_squares)(std::int64_t count, std::int64_t channels, const T* x, const float* centre, float* sums);

    /// y = [silu](a[c]*x + b[c]).
    void (*affine)(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b, bool silu, T* y);

    /// The same in whole steps, `steps` to a unit: y = [silu](a[c]*x + b[c]) * steps, rounded and held within +-127.
    void (*quantise)(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b, bool silu, float steps,
                     std::int8_t* y);

    /// From the slope `dy` on y to the slope `dx` on x, and per channel the slopes on gain (`dgain`) and offset (`doffset`).
    /// `work` holds at least (4 + positions)*channels numbers.
    void (*backward)(const Sample& s, const T* x, const T* dy, const float* gain, const float* offset, const float* mean,
                     const float* inverse_deviation, T* dx, float* dgain, float* doffset, float* work);
};

struct Table {
    Loops<float> float32;
    Loops<Bfloat16> bfloat16;
};

/// Compilations of the loops; only `plain` runs on every processor.
extern const Table plain;
#ifdef ATELIER_X86_KERNELS
extern const Table avx2, avx512;
#endif

/// The fastest table that this processor can run.
const Table& best();

}  // namespace atelier::ops::norm_kernels
