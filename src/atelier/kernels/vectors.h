#pragma once

#include <hwy/highway.h>

#include <cstdint>
#include <type_traits>

/// Vectors of the instruction set that the including file is compiled for; loops written in them
/// are vector code however the compiler treats scalar loops. Arithmetic is the compiler's, which
/// has operators for vectors of any processor; Google Highway knows how many lanes there are, and
/// has the operations that the compiler writes badly: minimum, maximum and conversions
/// (docs/decisions/0033). Everything is in an unnamed namespace, since compilations must not be
/// linked with each other.
namespace atelier::kernels {

namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
#error "Highway has no vectors for these compiler options; CMakeLists.txt has those it needs"
#endif

using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToUnsigned<Floats>;
constexpr int lanes = static_cast<int>(HWY_LANES(float));

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

/// Highway's form of a vector.
inline hn::Vec<Floats> floats(Vector v) { return hn::Vec<Floats>{v}; }
inline hn::Vec<Words> words(Bits<Vector> v) {
    return hn::BitCast(Words(), floats(__builtin_bit_cast(Vector, v)));
}

/// V: Vector, or float for the remaining elements.
template <class V>
inline V load(const float* from) {
    return *reinterpret_cast<const typename Like<float, V>::Loose*>(from);
}

template <class V>
inline V load(const std::uint16_t* bfloat16) {
    if constexpr (std::is_arithmetic_v<V>) {
        return __builtin_bit_cast(V, static_cast<std::uint32_t>(*bfloat16) << 16);
    } else {
        const auto half = hn::LoadU(hn::Rebind<std::uint16_t, Floats>(), bfloat16);
        return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(Words(), half))).raw;
    }
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
    if constexpr (std::is_arithmetic_v<V>) {
        *bfloat16 = static_cast<std::uint16_t>(chosen);
    } else {
        const hn::Rebind<std::uint16_t, Floats> halves;
        hn::StoreU(hn::TruncateTo(halves, words(chosen)), halves, bfloat16);
    }
}

/// Integers within +-127, of which only the low bits are stored.
template <class V>
inline void store_bytes(std::int8_t* to, Bits<V> values) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(to);
    if constexpr (std::is_arithmetic_v<V>) {
        *bytes = static_cast<std::uint8_t>(values);
    } else {
        const hn::Rebind<std::uint8_t, Floats> tag;
        hn::StoreU(hn::TruncateTo(tag, words(values)), tag, bytes);
    }
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
    const V low = V{} + minimum, high = V{} + maximum;
#if HWY_ARCH_X86
    // Both operations give their second operand where one is NaN.
    if constexpr (!std::is_arithmetic_v<V>)
        return hn::Min(floats(high), hn::Max(floats(low), floats(x))).raw;
#endif
    const V raised = low > x ? low : x;
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
