#include "atelier/ops/norm_kernels.h"

#include "atelier/ops/vectors.h"

// This file is compiled once for every instruction set (CMakeLists.txt), with ATELIER_INSTRUCTIONS naming it. Nothing in it may be shared
// between the compilations, so all but the table at the end stays in the unnamed namespace.
#ifndef ATELIER_INSTRUCTIONS
#define ATELIER_INSTRUCTIONS plain
#endif

namespace atelier::ops::norm_kernels {

namespace {

template <class T>
void sum(std::int64_t count, std::int64_t channels, const T* x, const float* centre, float* sums) {
    in_vectors(channels, [&]<class V>(std::int64_t c, V total) {
        const V middle = load<V>(centre + c);
        for (std::int64_t p = 0; p < count; ++p) total += load<V>(x + p * channels + c) - middle;
        store(sums + c, total);
    });
}

template <class T>
void sum_squares(std::int64_t count, std::int64_t channels, const T* x, const float* centre, float* sums) {
    in_vectors(channels, [&]<class V>(std::int64_t c, V total) {
        const V middle = load<V>(centre + c);
        for (std::int64_t p = 0; p < count; ++p) {
            const V away = load<V>(x + p * channels + c) - middle;
            total += away * away;
        }
        store(sums + c, total);
    });
}

template <bool silu, class T>
inline void affine_body(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b, T* y) {
    for (std::int64_t row = 0; row < count * channels; row += channels) {
        in_vectors(channels, [&]<class V>(std::int64_t c, V) {
            const V u = load<V>(a + c) * load<V>(x + row + c) + load<V>(b + c);
            store(y + row + c, silu ? u * sigmoid(u) : u);
        });
    }
}

template <bool silu, class T>
inline void quantise_body(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b, float steps, std::int8_t* y) {
    constexpr float largest = 127, to_integer = 12582912.0F;  // 1.5 * 2^23: what is added is rounded, ties to even, and ends up in the low bits
    for (std::int64_t row = 0; row < count * channels; row += channels) {
        in_vectors(channels, [&]<class V>(std::int64_t c, V) {
            const V u = load<V>(a + c) * load<V>(x + row + c) + load<V>(b + c);
            const V wanted = steps * (silu ? u * sigmoid(u) : u);
            store_bytes<V>(y + row + c, __builtin_bit_cast(Bits<V>, held_within(wanted, -largest, largest) + to_integer));
        });
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
    for (std::int64_t c = 0; c < channels; ++c) {
        scale[c] = inverse_deviation[c / each];
        shift[c] = scale[c] * mean[c / each];
        dgain[c] = doffset[c] = 0;
    }
    for (std::int64_t row = 0; row < s.positions * channels; row += channels) {
        in_vectors(channels, [&]<class V>(std::int64_t c, V) {
            const V normal = load<V>(scale + c) * load<V>(x + row + c) - load<V>(shift + c);
            V slope = load<V>(dy + row + c);
            if constexpr (silu) {
                const V u = load<V>(gain + c) * normal + load<V>(offset + c), gate = sigmoid(u);
                slope *= gate * (1.0F + u * (1.0F - gate));
            }
            store(du + row + c, slope);
            store(doffset + c, load<V>(doffset + c) + slope);
            store(dgain + c, load<V>(dgain + c) + slope * normal);
        });
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
    for (std::int64_t row = 0; row < s.positions * channels; row += channels) {
        in_vectors(channels, [&]<class V>(std::int64_t c, V) {
            const V normal = load<V>(scale + c) * load<V>(x + row + c) - load<V>(shift + c);
            const V slope = load<V>(gain + c) * load<V>(du + row + c) - load<V>(along_mean + c) - normal * load<V>(along_x + c);
            store(dx + row + c, load<V>(scale + c) * slope);
        });
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
