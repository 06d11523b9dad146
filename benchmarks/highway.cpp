// The normalisation's inner loop, y = silu(a[c] * x + b[c]), written with Google Highway and with
// kernels/vectors.h, alternately on the same data; prints nanoseconds per element (medians) and
// their ratio. docs/decisions/0033 has the figures.
//
//   g++-12 -std=c++20 -O3 -fno-math-errno -fno-trapping-math -march=x86-64-v4 -Isrc \
//       benchmarks/highway.cpp -o highway -lhwy && ./highway

#include <hwy/highway.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "atelier/kernels/vectors.h"

namespace {

using Bfloat16 = std::uint16_t;

namespace ours {

using namespace atelier::kernels;

template <class T>
void affine_silu(std::int64_t count, std::int64_t channels, const T* x, const float* a,
                 const float* b, T* y) {
    for (std::int64_t p = 0; p < count; ++p) {
        for_each_vector(channels, [&]<class V>(std::int64_t c, V) {
            const V v = load<V>(a + c) * load<V>(x + p * channels + c) + load<V>(b + c);
            store(y + p * channels + c, v * sigmoid(v));
        });
    }
}

}  // namespace ours

namespace highway {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToUnsigned<Floats>;
using Halves = hn::Rebind<std::uint16_t, Floats>;
using V = hn::Vec<Floats>;

V load(const float* from) { return hn::LoadU(Floats(), from); }
V load(const Bfloat16* from) {
    const auto wide = hn::PromoteTo(Words(), hn::LoadU(Halves(), from));
    return hn::BitCast(Floats(), hn::ShiftLeft<16>(wide));
}
void store(float* to, V v) { hn::StoreU(v, Floats(), to); }
void store(Bfloat16* to, V v) {
    const Words words;
    const auto bits = hn::BitCast(words, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(words, 0x7fff)), odd));
    const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(words, 0x40));
    const auto is_nan = hn::RebindMask(words, hn::IsNaN(v));
    hn::StoreU(hn::TruncateTo(Halves(), hn::IfThenElse(is_nan, quiet, rounded)), Halves(), to);
}

/// The polynomial of kernels/vectors.h.
V exponential(V x) {
    const Floats f;
    const auto set = [&](float value) { return hn::Set(f, value); };
    const V clamped = hn::Min(hn::Max(x, set(-87.0F)), set(88.0F));
    const V shifted = hn::MulAdd(clamped, set(1.44269504F), set(12582912.0F));
    const V n = hn::Sub(shifted, set(12582912.0F));
    const V r = hn::MulAdd(n, set(2.12194440e-4F), hn::NegMulAdd(n, set(0.693359375F), clamped));
    V p = hn::MulAdd(r, set(1.388889e-3F), set(8.33337e-3F));
    for (const float c : {4.16664853e-2F, 0.166666657F, 0.5F, 1.0F, 1.0F})
        p = hn::MulAdd(r, p, set(c));
    const Words words;
    const auto power =
        hn::Add(hn::ShiftLeft<23>(hn::BitCast(words, shifted)), hn::Set(words, 127U << 23));
    return hn::Mul(p, hn::BitCast(f, power));
}

template <class T>
void affine_silu(std::int64_t count, std::int64_t channels, const T* x, const float* a,
                 const float* b, T* y) {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(Floats()));
    const V one = hn::Set(Floats(), 1.0F);
    for (std::int64_t p = 0; p < count; ++p) {
        for (std::int64_t c = 0; c + lanes <= channels; c += lanes) {
            const V v = hn::MulAdd(load(a + c), load(x + p * channels + c), load(b + c));
            const V sigmoid = hn::Div(one, hn::Add(one, exponential(hn::Neg(v))));
            store(y + p * channels + c, hn::Mul(v, sigmoid));
        }
    }
}

}  // namespace highway

template <class Run>
double seconds(const Run& run) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 20;
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
    return values[values.size() / 2];
}

double value_of(float x) { return x; }
double value_of(Bfloat16 x) { return __builtin_bit_cast(float, std::uint32_t{x} << 16); }

template <class T>
void compare(const char* name, std::int64_t positions, std::int64_t channels) {
    const auto numbers = static_cast<std::size_t>(positions * channels);
    std::vector<T> x(numbers), y(numbers), z(numbers);
    std::vector<float> a(channels, 0.7F), b(channels, -0.1F);
    for (std::size_t i = 0; i < numbers; ++i) {
        const float value = std::sin(static_cast<float>(i)) * 3;
        if constexpr (std::is_same_v<T, float>) x[i] = value;
        else x[i] = static_cast<T>(__builtin_bit_cast(std::uint32_t, value) >> 16);
    }
    std::vector<double> first, second;
    for (int turn = 0; turn < 101; ++turn) {
        first.push_back(seconds([&] {
            ours::affine_silu(positions, channels, x.data(), a.data(), b.data(), y.data());
        }));
        second.push_back(seconds([&] {
            highway::affine_silu(positions, channels, x.data(), a.data(), b.data(), z.data());
        }));
    }
    double apart = 0;
    for (std::size_t i = 0; i < numbers; ++i)
        apart = std::max(apart, std::abs(value_of(y[i]) - value_of(z[i])));
    const double unit = 1e9 / static_cast<double>(numbers);
    std::printf("%s %4ld x %3ld: vectors.h %.3f ns, Highway %.3f ns, ratio %.2f; apart %.1e\n",
                name, static_cast<long>(positions), static_cast<long>(channels),
                median(first) * unit, median(second) * unit, median(second) / median(first), apart);
}

}  // namespace

int main() {
    std::printf("Highway's target %s, %zu lanes\n", hwy::TargetName(HWY_STATIC_TARGET),
                hwy::HWY_NAMESPACE::Lanes(highway::Floats()));
    for (const auto [positions, channels] : {std::pair{49L, 64L}, {196L, 32L}, {784L, 96L}}) {
        compare<float>("float32 ", positions, channels);
        compare<Bfloat16>("bfloat16", positions, channels);
    }
}
