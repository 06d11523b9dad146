#pragma once

#include <cstdint>

/// Inner loops of the fused normalisation, one sample at a time, channels innermost (NHWC).
/// Torch-free; compiled for several instruction sets, of which `best` picks one at run time.
namespace atelier::kernels::norm_kernels {

/// Sizes of one sample: `positions` = H*W, `channels` a multiple of `groups`.
struct Sample {
    std::int64_t positions, channels, groups;
    float eps;
    bool silu;
};

/// bfloat16 bits, so that the loops do not depend on torch.
using Bfloat16 = std::uint16_t;

/// The loops for elements of type T. `count` is a number of positions of `channels` elements each.
template <class T>
struct Loops {
    /// sums[c] = sum over positions of x - centre[c].
    void (*sum)(std::int64_t count, std::int64_t channels, const T* x, const float* centre,
                float* sums);

    /// sums[c] = sum over positions of (x - centre[c])^2.
    void (*sum_squares)(std::int64_t count, std::int64_t channels, const T* x, const float* centre,
                        float* sums);

    /// y = [silu](a[c]*x + b[c]).
    void (*affine)(std::int64_t count, std::int64_t channels, const T* x, const float* a,
                   const float* b, bool silu, T* y);

    /// The same in int8, `steps` per unit: y = [silu](a[c]*x + b[c]) * steps, rounded and clamped
    /// to +-127.
    void (*quantise)(std::int64_t count, std::int64_t channels, const T* x, const float* a,
                     const float* b, bool silu, float steps, std::int8_t* y);

    /// From the gradient `dy` to the gradient `dx` and, per channel, the gradients with respect to
    /// weight (`dweight`) and bias (`dbias`). `work` holds at least (4 + positions)*channels
    /// floats.
    void (*backward)(const Sample& s, const T* x, const T* dy, const float* weight,
                     const float* bias, const float* mean, const float* rstd, T* dx, float* dweight,
                     float* dbias, float* work);
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

}  // namespace atelier::kernels::norm_kernels
