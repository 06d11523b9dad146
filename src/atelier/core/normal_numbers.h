#pragma once

#include "atelier/core/device_code.h"

/// What a RandomStream is made of, for CPUs and GPUs: the same bits on both, given that products
/// and sums are not contracted (NVRTC: --fmad=false).
namespace atelier::core {

/// Philox-4x32-10 (Salmon et al. 2011): its rounds, what they multiply words 0 and 2 of the counter
/// by, and what they add to the halves of the key.
struct Philox {
    static constexpr int rounds = 10;
    static constexpr unsigned int multiplier0 = 0xd2511f53U, multiplier2 = 0xcd9e8d57U;
    static constexpr unsigned int increment0 = 0x9e3779b9U, increment1 = 0xbb67ae85U;
};

/// One block of Philox in place of its counter.
ATELIER_DEVICE void philox_rounds(unsigned int (&counter)[4], unsigned int key0,
                                  unsigned int key1) {
    for (int round = 0; round < Philox::rounds; ++round) {
        const unsigned long long a =
            static_cast<unsigned long long>(Philox::multiplier0) * counter[0];
        const unsigned long long b =
            static_cast<unsigned long long>(Philox::multiplier2) * counter[2];
        const unsigned int first = static_cast<unsigned int>(b >> 32) ^ counter[1] ^ key0;
        const unsigned int third = static_cast<unsigned int>(a >> 32) ^ counter[3] ^ key1;
        counter[0] = first;
        counter[1] = static_cast<unsigned int>(b);
        counter[2] = third;
        counter[3] = static_cast<unsigned int>(a);
        key0 += Philox::increment0;
        key1 += Philox::increment1;
    }
}

// The three functions below are Taylor series in double precision, accurate to a few units in the
// last place. Those of the C library are slower here and differ between machines (some use fused
// multiply-add), and streams must not.

/// Coefficients by rising powers.
template <int count_>
struct Series {
    static constexpr int count = count_;
    double of[count_];
};

/// Of artanh(x) / x, sin(x) / x and cos(x) by powers of x^2.
ATELIER_DEVICE constexpr Series<11> artanh_series() {
    return {
        {1, 1. / 3, 1. / 5, 1. / 7, 1. / 9, 1. / 11, 1. / 13, 1. / 15, 1. / 17, 1. / 19, 1. / 21}};
}
ATELIER_DEVICE constexpr Series<9> sine_series() {
    return {{1, -1. / 6, 1. / 120, -1. / 5040, 1. / 362880, -1. / 39916800, 1. / 6227020800,
             -1. / 1307674368000, 1. / 355687428096000}};
}
ATELIER_DEVICE constexpr Series<9> cosine_series() {
    return {{1, -1. / 2, 1. / 24, -1. / 720, 1. / 40320, -1. / 3628800, 1. / 479001600,
             -1. / 87178291200, 1. / 20922789888000}};
}

template <int count>
ATELIER_DEVICE double horner(const Series<count>& series, double x) {
    double sum = series.of[count - 1];
    for (int i = count - 1; i > 0; --i) sum = sum * x + series.of[i - 1];
    return sum;
}

/// log(x) of a positive normal number: x = 2^e m with m in [sqrt(1/2), sqrt(2)), log(m) = 2
/// artanh((m-1)/(m+1)).
ATELIER_DEVICE double natural_log(double x) {
    constexpr Series<11> artanh = artanh_series();
    constexpr unsigned long long root_half = 0x3fe6a09e667f3bcdULL;  // bits of sqrt(1/2)
    constexpr int mantissa_bits = 52;
    constexpr double ln2 = 0x1.62e42fefa39efp-1;
    const unsigned long long bits = bits_of(x);
    const long long exponent = static_cast<long long>(bits - root_half) >> mantissa_bits;
    const double m = double_of(bits - (static_cast<unsigned long long>(exponent) << mantissa_bits));
    const double f = (m - 1) / (m + 1);
    return static_cast<double>(exponent) * ln2 + 2 * f * horner(artanh, f * f);
}

struct NormalPair {
    double first, second;
};

/// (cos, sin) of 2 pi `turns`, `turns` in [0, 1): the remainder after the nearest quarter turn is
/// at most pi/4.
ATELIER_DEVICE NormalPair cos_sin_of_turns(double turns) {
    constexpr Series<9> sine = sine_series(), cosine = cosine_series();
    constexpr double half_pi = 0x1.921fb54442d18p+0;
    const unsigned int quarter = static_cast<unsigned int>(4 * turns + 0.5);
    const double x = (4 * turns - quarter) * half_pi;
    const double s = x * horner(sine, x * x), c = horner(cosine, x * x);
    // Sine and cosine are exchanged at odd quarters, and signs follow: by bits, since branches
    // would be mispredicted half of the time.
    const unsigned long long quarters = quarter, odd = 0 - (quarters & 1);
    const unsigned long long exchanged = (bits_of(s) ^ bits_of(c)) & odd;
    return {double_of((bits_of(c) ^ exchanged) ^ (((quarters + 1) & 2) << 62)),
            double_of((bits_of(s) ^ exchanged) ^ ((quarters & 2) << 62))};
}

/// Box-Muller: two independent standard normals. The added half keeps the uniforms away from 0,
/// where the logarithm is infinite.
ATELIER_DEVICE NormalPair normal_pair(unsigned int first, unsigned int second) {
    constexpr double scale = 0x1p-32;
    const double radius = square_root(-2 * natural_log((first + 0.5) * scale));
    const NormalPair direction = cos_sin_of_turns((second + 0.5) * scale);
    return {radius * direction.first, radius * direction.second};
}

}  // namespace atelier::core
