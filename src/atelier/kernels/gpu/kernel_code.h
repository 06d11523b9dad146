#pragma once

#include "atelier/core/device_code.h"

/// What kernels are written with. One source serves two compilers: NVRTC makes a program for GPUs
/// of it, and the host's compiler loops over blocks and threads, which tests check.
///
/// A kernel is a struct with
///     static constexpr int threads       of a block
///     static constexpr int phases        between which all threads of a block wait
///     struct Arguments                   plain values and pointers
///     struct Shared                      memory of a block, not initialised
///     template <int phase> static void run(const Arguments&, const Place&, Shared&)
/// In a phase a thread reads no shared memory that another one writes in it, and nothing of a
/// thread lasts from phase to phase; so any order of blocks and threads gives the same bits.
namespace atelier::kernels::gpu {

/// Which thread of which block this is.
struct Place {
    int thread, x, y, z;
};

/// For kernels of one phase.
struct NoShared {
    char unused;
};

/// The bits of a bfloat16.
struct Bfloat16 {
    unsigned short bits;
};

ATELIER_DEVICE float as_float(float value) { return value; }
ATELIER_DEVICE float as_float(Bfloat16 value) {
    return core::float_of(static_cast<unsigned int>(value.bits) << 16);
}

/// `value` as T, rounded to nearest even.
template <class T>
ATELIER_DEVICE T rounded(float value);

template <>
ATELIER_DEVICE float rounded<float>(float value) {
    return value;
}

template <>
ATELIER_DEVICE Bfloat16 rounded<Bfloat16>(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    Bfloat16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
#else
    const unsigned int bits = core::bits_of(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return {0x7fff};  // NaN, as on GPUs
    return {static_cast<unsigned short>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
#endif
}

/// 1 / (1 + exp(-x)), to a few units in the last place of float32.
ATELIER_DEVICE float sigmoid(float x) {
#ifdef __CUDACC_RTC__
    return __fdividef(1.0F, 1.0F + __expf(-x));
#else
    return 1.0F / (1.0F + std::exp(-x));
#endif
}

/// x to the power of y.
ATELIER_DEVICE double power(double x, double y) {
#ifdef __CUDACC_RTC__
    return pow(x, y);
#else
    return std::pow(x, y);
#endif
}

/// Before a loop: the reads of `times` of its iterations are under way together.
#ifdef __CUDACC_RTC__
#define ATELIER_PRAGMA(text) _Pragma(#text)
#define ATELIER_UNROLL(times) ATELIER_PRAGMA(unroll times)
#else
#define ATELIER_UNROLL(times)
#endif

/// `count` elements that are read and written together: 16 bytes where count > 1.
template <class T, int count>
struct alignas(count * sizeof(T)) Pack {
    T values[count];
};

/// Reads what no thread of the kernel writes, so that reads may be moved before writes.
template <class T, int count>
ATELIER_DEVICE void load(const T* from, float (&values)[count]) {
    using Elements = Pack<T, count>;
#ifdef __CUDACC_RTC__
    if constexpr (sizeof(Elements) == sizeof(uint4)) {
        const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
        const Elements& pack = reinterpret_cast<const Elements&>(words);
        for (int i = 0; i < count; ++i) values[i] = as_float(pack.values[i]);
        return;
    }
#endif
    const Elements pack = *reinterpret_cast<const Elements*>(from);
    for (int i = 0; i < count; ++i) values[i] = as_float(pack.values[i]);
}

template <class T, int count>
ATELIER_DEVICE void store(const float (&values)[count], T* to) {
    Pack<T, count> pack;
    for (int i = 0; i < count; ++i) pack.values[i] = rounded<T>(values[i]);
    *reinterpret_cast<Pack<T, count>*>(to) = pack;
}

#ifdef __CUDACC_RTC__

template <class Kernel, int phase>
__device__ __forceinline__ void run_from(const typename Kernel::Arguments& arguments,
                                         const Place& place, typename Kernel::Shared& shared) {
    Kernel::template run<phase>(arguments, place, shared);
    if constexpr (phase + 1 < Kernel::phases) {
        __syncthreads();
        run_from<Kernel, phase + 1>(arguments, place, shared);
    }
}

template <class Kernel>
__device__ __forceinline__ void run_block(const typename Kernel::Arguments& arguments) {
    __shared__ typename Kernel::Shared shared;
    const Place place{static_cast<int>(threadIdx.x), static_cast<int>(blockIdx.x),
                      static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)};
    run_from<Kernel, 0>(arguments, place, shared);
}

/// Defines the kernel `name` of a GPU's program.
#define ATELIER_KERNEL(name, ...)                                        \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__::threads)   \
        name(const __grid_constant__ __VA_ARGS__::Arguments arguments) { \
        atelier::kernels::gpu::run_block<__VA_ARGS__>(arguments);        \
    }

#endif

}  // namespace atelier::kernels::gpu
