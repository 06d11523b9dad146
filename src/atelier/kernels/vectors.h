#pragma once

#include <cstdint>
#include <type_traits>

/// Vectors of the instruction set that the including file is compiled for; loops written in them
/// are vector code however the compiler treats scalar loops. Everything is in an unnamed namespace,
/// since compilations must not be linked with each other.
namespace atelier::kernels {

namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

using Vector = float __attribute__((vector_size(lanes * sizeof(float))));

/// A vector of as many elements as V, of another type; `Loose` may be unaligned.
template <class Number, class V>
struct Like {
    using Type __attribute__((vector_size(lanes * sizeof(Number)))) = Number;
    using Loose
        __attribute__((vector_size(lanes * sizeof(Number)), aligned(alignof(Number)), may_alias)) =
            Number;
};

template <class Number>
struct Like<Number, float> {
    using Type = Number;
    using Loose __attribute__((may_alias)) = Number;
};

template <class V>
using Bits = typename Like<std::uint32_t, V>::Type;

template <class To, class From>
inline To converted(From from) {
    if constexpr (std::is_arithmetic_v<From>) return static_cast<To>(from);
    else return __builtin_convertvector(from, To);
}

/// V: Vector, or float for the remaining elements.
template <class V>
inline V load(const float* from) {
    return *reinterpret_cast<const typename Like<float, V>::Loose*>(from);
}

template <class V>
inline V load(const std::uint16_t* bfloat16) {
    using Half = typename Like<std::uint16_t, V>::Type;
    const Half half = *reinterpret_cast<const typename Like<std::uint16_t, V>::Loose*>(bfloat16);
    return __builtin_bit_cast(V, converted<Bits<V>>(half) << 16);
}

template <class V>
inline void store(float* to, V v) {
    *reinterpret_cast<typename Like<float, V>::Loose*>(to) = v;
}

/// Rounds to nearest, ties to even; NaN stays NaN.
template <class V>
inline void store(std::uint16_t* bfloat16, V v) {
    const auto bits = __builtin_bit_cast(Bits<V>, v);
    const Bits<V> rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16,
                  quiet = (bits >> 16) | 0x40U;
    const Bits<V> chosen = (bits & 0x7fffffffU) > 0x7f800000U ? quiet : rounded;
    *reinterpret_cast<typename Like<std::uint16_t, V>::Loose*>(bfloat16) =
        converted<typename Like<std::uint16_t, V>::Type>(chosen);
}

/// Integers within +-127, of which only the low bits are stored.
template <class V>
inline void store_bytes(std::int8_t* to, Bits<V> values) {
    *reinterpret_cast<typename Like<std::int8_t, V>::Loose*>(to) =
        converted<typename Like<std::int8_t, V>::Type>(values);
}

/// Calls body(i, V{}) for vectors of 0 to count-1 and then, with float, for each of the remaining
/// elements.
template <class Body>
inline void for_each_vector(std::int64_t count, const Body& body) {
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) body(i, Vector{});
    for (; i < count; ++i) body(i, float{});
}

/// NaN stays NaN.
template <class V>
inline V clamp(V x, float minimum, float maximum) {
    const V low = V{} + minimum, high = V{} + maximum, raised = low > x ? low : x;
    return high < raised ? high : raised;
}

/// exp to about one unit in the last place: 2^n times a polynomial in the remainder r, |r| <=
/// ln(2)/2.
template <class V>
inline V exponential(V x) {
    const V clamped = clamp(x, -87.0F, 88.0F);
    const V shifted =
        clamped * 1.44269504F + 12582912.0F;  // 1.5 * 2^23: the integer ends up in the low bits
    const V n = shifted - 12582912.0F;
    const V r = (clamped - n * 0.693359375F) + n * 2.12194440e-4F;
    const V p =
        1 + r * (1 + r * (0.5F + r * (0.166666657F + r * (4.16664853e-2F +
                                                          r * (8.33337e-3F + r * 1.388889e-3F)))));
    return p * __builtin_bit_cast(V, (__builtin_bit_cast(Bits<V>, shifted) << 23) + (127U << 23));
}

template <class V>
inline V sigmoid(V x) {
    return 1.0F / (1.0F + exponential(-x));
}

}  // namespace

}  // namespace atelier::kernels
