#include "atelier/kernels/norm_kernels.h"

#include "atelier/kernels/vectors.h"

// This file is compiled once per instruction set (CMakeLists.txt), which ATELIER_INSTRUCTIONS
// names. The compilations must share nothing, so everything but the table at the end is in the
// unnamed namespace.
#ifndef ATELIER_INSTRUCTIONS
#define ATELIER_INSTRUCTIONS plain
#endif

namespace atelier::kernels::norm_kernels {

namespace {

template <class T>
void sum(std::int64_t count, std::int64_t channels, const T* x, const float* centre, float* sums) {
    for_each_vector(channels, [&]<class V>(std::int64_t c, V total) {
        const V middle = load<V>(centre + c);
        for (std::int64_t p = 0; p < count; ++p) total += load<V>(x + p * channels + c) - middle;
        store(sums + c, total);
    });
}

template <class T>
void sum_squares(std::int64_t count, std::int64_t channels, const T* x, const float* centre,
                 float* sums) {
    for_each_vector(channels, [&]<class V>(std::int64_t c, V total) {
        const V middle = load<V>(centre + c);
        for (std::int64_t p = 0; p < count; ++p) {
            const V away = load<V>(x + p * channels + c) - middle;
            total += away * away;
        }
        store(sums + c, total);
    });
}

template <bool silu, class T>
inline void affine_body(std::int64_t count, std::int64_t channels, const T* x, const float* a,
                        const float* b, T* y) {
    for (std::int64_t row = 0; row < count * channels; row += channels) {
        for_each_vector(channels, [&]<class V>(std::int64_t c, V) {
            const V u = load<V>(a + c) * load<V>(x + row + c) + load<V>(b + c);
            store(y + row + c, silu ? u * sigmoid(u) : u);
        });
    }
}

template <bool silu, class T>
inline void quantise_body(std::int64_t count, std::int64_t channels, const T* x, const float* a,
                          const float* b, float steps, std::int8_t* y) {
    constexpr float largest = 127,
                    to_integer = 12582912.0F;  // 1.5 * 2^23: a summand is rounded, ties to
                                               // even, and ends up in the low bits
    for (std::int64_t row = 0; row < count * channels; row += channels) {
        for_each_vector(channels, [&]<class V>(std::int64_t c, V) {
            const V u = load<V>(a + c) * load<V>(x + row + c) + load<V>(b + c);
            const V rounded = steps * (silu ? u * sigmoid(u) : u);
            store_bytes<V>(
                y + row + c,
                __builtin_bit_cast(Bits<V>, clamp(rounded, -largest, largest) + to_integer));
        });
    }
}

template <bool silu, class T>
inline void backward_body(const Sample& s, const T* x, const T* dy, const float* weight,
                          const float* bias, const float* mean, const float* rstd, T* dx,
                          float* dweight, float* dbias, float* work) {
    const std::int64_t channels = s.channels, each = channels / s.groups;
    float* scale = work;  // x^ = scale*x - shift
    float* shift = work + channels;
    float* mean_term = work + 2 * channels;  // dx = scale*(weight*du - mean_term - x^*x_term)
    float* x_term = work + 3 * channels;
    float* du = work + 4 * channels;  // gradient with respect to weight*x^ + bias
    for (std::int64_t c = 0; c < channels; ++c) {
        scale[c] = rstd[c / each];
        shift[c] = scale[c] * mean[c / each];
        dweight[c] = dbias[c] = 0;
    }
    for (std::int64_t row = 0; row < s.positions * channels; row += channels) {
        for_each_vector(channels, [&]<class V>(std::int64_t c, V) {
            const V normal = load<V>(scale + c) * load<V>(x + row + c) - load<V>(shift + c);
            V gradient = load<V>(dy + row + c);
            if constexpr (silu) {
                const V u = load<V>(weight + c) * normal + load<V>(bias + c), gate = sigmoid(u);
                gradient *= gate * (1.0F + u * (1.0F - gate));
            }
            store(du + row + c, gradient);
            store(dbias + c, load<V>(dbias + c) + gradient);
            store(dweight + c, load<V>(dweight + c) + gradient * normal);
        });
    }
    const auto count = static_cast<double>(each * s.positions);
    for (std::int64_t g = 0; g < s.groups; ++g) {
        double plain = 0, weighed = 0;
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c) {
            plain += static_cast<double>(weight[c]) * dbias[c];
            weighed += static_cast<double>(weight[c]) * dweight[c];
        }
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c) {
            mean_term[c] = static_cast<float>(plain / count);
            x_term[c] = static_cast<float>(weighed / count);
        }
    }
    for (std::int64_t row = 0; row < s.positions * channels; row += channels) {
        for_each_vector(channels, [&]<class V>(std::int64_t c, V) {
            const V normal = load<V>(scale + c) * load<V>(x + row + c) - load<V>(shift + c);
            const V gradient = load<V>(weight + c) * load<V>(du + row + c) -
                               load<V>(mean_term + c) - normal * load<V>(x_term + c);
            store(dx + row + c, load<V>(scale + c) * gradient);
        });
    }
}

template <class T>
void affine(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b,
            bool silu, T* y) {
    if (silu) affine_body<true>(count, channels, x, a, b, y);
    else affine_body<false>(count, channels, x, a, b, y);
}

template <class T>
void quantise(std::int64_t count, std::int64_t channels, const T* x, const float* a, const float* b,
              bool silu, float steps, std::int8_t* y) {
    if (silu) quantise_body<true>(count, channels, x, a, b, steps, y);
    else quantise_body<false>(count, channels, x, a, b, steps, y);
}

template <class T>
void backward(const Sample& s, const T* x, const T* dy, const float* weight, const float* bias,
              const float* mean, const float* rstd, T* dx, float* dweight, float* dbias,
              float* work) {
    if (s.silu) backward_body<true>(s, x, dy, weight, bias, mean, rstd, dx, dweight, dbias, work);
    else backward_body<false>(s, x, dy, weight, bias, mean, rstd, dx, dweight, dbias, work);
}

}  // namespace

extern const Table ATELIER_INSTRUCTIONS;
const Table ATELIER_INSTRUCTIONS{
    {sum<float>, sum_squares<float>, affine<float>, quantise<float>, backward<float>},
    {sum<Bfloat16>, sum_squares<Bfloat16>, affine<Bfloat16>, quantise<Bfloat16>,
     backward<Bfloat16>}};

}  // namespace atelier::kernels::norm_kernels
