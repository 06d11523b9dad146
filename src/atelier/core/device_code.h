#pragma once

/// What code needs that runs on CPUs and GPUs: the host's compiler and NVRTC, which has no headers,
/// read the same source. Such code is C++17 without the standard library, and `long long` is its
/// type of 64 bits.

#ifdef __CUDACC_RTC__
#define ATELIER_DEVICE __device__ __forceinline__
#else
#include <cmath>
#include <cstring>
#define ATELIER_DEVICE inline
#endif

namespace atelier::core {

ATELIER_DEVICE unsigned long long bits_of(double value) {
#ifdef __CUDACC_RTC__
    return static_cast<unsigned long long>(__double_as_longlong(value));
#else
    unsigned long long bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

ATELIER_DEVICE double double_of(unsigned long long bits) {
#ifdef __CUDACC_RTC__
    return __longlong_as_double(static_cast<long long>(bits));
#else
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

ATELIER_DEVICE unsigned int bits_of(float value) {
#ifdef __CUDACC_RTC__
    return __float_as_uint(value);
#else
    unsigned int bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

ATELIER_DEVICE float float_of(unsigned int bits) {
#ifdef __CUDACC_RTC__
    return __uint_as_float(bits);
#else
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

/// Correctly rounded on both.
ATELIER_DEVICE double square_root(double x) {
#ifdef __CUDACC_RTC__
    return sqrt(x);
#else
    return std::sqrt(x);
#endif
}

ATELIER_DEVICE float square_root(float x) {
#ifdef __CUDACC_RTC__
    return sqrtf(x);
#else
    return std::sqrt(x);
#endif
}

}  // namespace atelier::core
