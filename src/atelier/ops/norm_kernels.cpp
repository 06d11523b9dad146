#include "atelier/ops/norm_kernels.h"

// This file is compiled once for every instruction set (CMakeLists.txt), with ATELIER_INSTRUCTIONS naming it. Nothing in it may be shared
// between the compilations, so all but the table at the end stays in the unnamed namespace.
#ifndef ATELIER_INSTRUCTIONS
#define ATELIER_INSTRUCTIONS plain
#endif
#define ATELIER_EACH_CHANNEL _Pragma("GCC ivdep") for (std::int64_t c = 0; c < channels; ++c)

namespace atelier::ops::norm_kernels {

namespace {

inline float load(const float* from, std::int64_t i) { return from[i]; }

inline float load(const Bfloat16* from, std::int64_t i) {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(from[i]) << 16);
}

inline void store(float* to, std::int64_t i, float value) { to[i] = value; }

/// Rounds to nearest, ties to even; what is no number stays none.
inline void store(Bfloat16* to, std::int64_t i, float value) {
    const auto bits = __builtin_bit_cast(std::uint32_t, value);
    const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    const std::uint32_t quiet = (bits >> 16) | 0x40U;
    to[i] = static_cast<Bfloat16>((bits & 0x7fffffffU) > 0x7f800000U ? quiet : rounded);
}

/// exp to about one unit in the last place, without branches so that the loops around it become vector code: 2^n times a polynomial in
/// the rest r, |r| <= ln(2)/2.
inline float exponential(float x) {
    const float raised = x > -87.0F ? x : -87.0F;
    const float held = raised < 88.0F ? raised : 88.0F;
    const float shifted = held * 1.44269504F + 12582912.0F;  // 1.5 * 2^23: the integer ends up in the low bits
    const float n = shifted - 12582912.0F;
    const float r = (held - n * 0.693359375F) + n * 2.12194440e-4F;
    const float p = 1 + r * (1 + r * (0.5F + r * (0.166666657F + r * (4.16664853e-2F + r * (8.33337e-3F + r * 1.388889e-3F)))));
    const auto power = __builtin_bit_cast(float, (__builtin_bit_cast(std::int32_t, shifted) << 23) + (127 << 23));
    return p * power;
}

inline float sigmoid(float x) { return 1.0F / (1.0F + exponential(-x)); }

template <class T>
void sum(std::int64_t count, std::int64_t channels, const T* x, const float* centre, float* sums) {
    ATELIER_EACH_CHANNEL sums[c] = 0;
    for (std::int64_t p = 0; p < count; ++p) {
        ATELIER_EACH_CHANNEL sums[c] += load(x, p * channels + c) - centre[c];
    }
}

template <class T>
void sum_squares(std::int64_t count, std::int64_t channels, const T* x, const float* centre, float* sums) {
    ATELIER_EACH_CHANNEL sums[c] = 0;
    for (std::int64_t p = 0; p < count; ++p) {
        ATELIER_EACH_CHANNEL {
            const float away = load(x, p * channels + c) - centre[c];
            sums[c] += away * away;
        }
    }
}

template <bool silu, class T>
inline void affine_body(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b, T* y) {
    for (std::int64_t p = 0; p < count; ++p) {
        const std::int64_t row = p * channels;
        ATELIER_EACH_CHANNEL {
            const float u = a[c] * load(x, row + c) + b[c];
            store(y, row + c, silu ? u * sigmoid(u) : u);
        }
    }
}

template <bool silu, class T>
inline void quantise_body(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b, float steps, std::int8_t* y) {
    constexpr float largest = 127, to_integer = 12582912.0F;  // 1.5 * 2^23: what is added is rounded, ties to even, and ends up in the low bits
    for (std::int64_t p = 0; p < count; ++p) {
        const std::int64_t row = p * channels;
        ATELIER_EACH_CHANNEL {
            const float u = a[c] * load(x, row + c) + b[c];
            const float wanted = steps * (silu ? u * sigmoid(u) : u);
            const float raised = wanted > -largest ? wanted : -largest;
            const float held = raised < largest ? raised : largest;
            y[row + c] = static_cast<std::int8_t>(__builtin_bit_cast(std::int32_t, held + to_integer));
        }
    }
}

template <bool silu, class T>
inline void backward_body(const Sample& s, const T* x, const T* dy, const float* gain, const float* offset, const float* mean,
                                  const float* inverse_deviation, T* dx, float* dgain, float* doffset, float* work) {
    const std::int64_t channels = s.channels, each = channels / s.groups;
    float* scale = work;              // x^ = scale*x - shift
    float* shift = work + channels;
    float* along_mean = work + 2 * channels;  // dx = scale*(gain*du - along_mean - x^*along_x)
    float* along_x = work + 3 * channels;
    float* du = work + 4 * channels;  // slope on gain*x^ + offset
    ATELIER_EACH_CHANNEL {
        scale[c] = inverse_deviation[c / each];
        shift[c] = scale[c] * mean[c / each];
        dgain[c] = doffset[c] = 0;
    }
    for (std::int64_t p = 0; p < s.positions; ++p) {
        const std::int64_t row = p * channels;
        ATELIER_EACH_CHANNEL {
            const float normal = scale[c] * load(x, row + c) - shift[c];
            float slope = load(dy, row + c);
            if constexpr (silu) {
                const float u = gain[c] * normal + offset[c];
                const float gate = sigmoid(u);
                slope *= gate * (1 + u * (1 - gate));
            }
            du[row + c] = slope;
            doffset[c] += slope;
            dgain[c] += slope * normal;
        }
    }
    const auto count = static_cast<double>(each * s.positions);
    for (std::int64_t g = 0; g < s.groups; ++g) {
        double plain = 0, weighed = 0;
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c) {
            plain += static_cast<double>(gain[c]) * doffset[c];
            weighed += static_cast<double>(gain[c]) * dgain[c];
        }
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c) {
            along_mean[c] = static_cast<float>(plain / count);
            along_x[c] = static_cast<float>(weighed / count);
        }
    }
    for (std::int64_t p = 0; p < s.positions; ++p) {
        const std::int64_t row = p * channels;
        ATELIER_EACH_CHANNEL {
            const float normal = scale[c] * load(x, row + c) - shift[c];
            store(dx, row + c, scale[c] * (gain[c] * du[row + c] - along_mean[c] - normal * along_x[c]));
        }
    }
}

template <class T>
void affine(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b, bool silu, T* y) {
    if (silu) affine_body<true>(count, channels, x, a, b, y);
    else affine_body<false>(count, channels, x, a, b, y);
}

template <class T>
void quantise(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b, bool silu, float steps, std::int8_t* y) {
    if (silu) quantise_body<true>(count, channels, x, a, b, steps, y);
    else quantise_body<false>(count, channels, x, a, b, steps, y);
}

template <class T>
void backward(const Sample& s, const T* x, const T* dy, const float* gain, const float* offset, const float* mean,
              const float* inverse_deviation, T* dx, float* dgain, float* doffset, float* work) {
    if (s.silu) backward_body<true>(s, x, dy, gain, offset, mean, inverse_deviation, dx, dgain, doffset, work);
    else backward_body<false>(s, x, dy, gain, offset, mean, inverse_deviation, dx, dgain, doffset, work);
}

}  // namespace

extern const Table ATELIER_INSTRUCTIONS;
const Table ATELIER_INSTRUCTIONS{{sum<float>, sum_squares<float>, affine<float>, quantise<float>, backward<float>},
                                 {sum<Bfloat16>, sum_squares<Bfloat16>, affine<Bfloat16>, quantise<Bfloat16>, backward<Bfloat16>}};

}  // namespace atelier::ops::norm_kernels
