#include "atelier/core/random_streams.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "atelier/core/hash.h"

namespace atelier::core {

namespace {

// The finaliser of SplitMix64 (Steele et al. 2014): adjacent seeds give unrelated keys.
std::uint64_t splitmix64(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

std::array<std::uint32_t, 2> halves(std::uint64_t x) {
    return {static_cast<std::uint32_t>(x), static_cast<std::uint32_t>(x >> 32)};
}

// The three functions below are Taylor series in double precision, accurate to a few units in the
// last place. Those of the C library are slower here and differ between machines (some use fused
// multiply-add), and streams must not.

template <std::size_t count>
double horner(const std::array<double, count>& coefficients, double x) {
    double sum = coefficients[count - 1];
    for (std::size_t i = count - 1; i > 0; --i) sum = sum * x + coefficients[i - 1];
    return sum;
}

// log(x) of a positive normal number: x = 2^e m with m in [sqrt(1/2), sqrt(2)), log(m) = 2
// artanh((m-1)/(m+1)).
double natural_log(double x) {
    constexpr std::array<double, 11> artanh{1,       1. / 3,  1. / 5,  1. / 7,  1. / 9, 1. / 11,
                                            1. / 13, 1. / 15, 1. / 17, 1. / 19, 1. / 21};
    constexpr std::uint64_t root_half = std::bit_cast<std::uint64_t>(std::numbers::sqrt2 / 2);
    constexpr int mantissa_bits = 52;
    const auto bits = std::bit_cast<std::uint64_t>(x);
    const auto exponent = static_cast<std::int64_t>(bits - root_half) >> mantissa_bits;
    const auto m =
        std::bit_cast<double>(bits - (static_cast<std::uint64_t>(exponent) << mantissa_bits));
    const double f = (m - 1) / (m + 1);
    return static_cast<double>(exponent) * std::numbers::ln2 + 2 * f * horner(artanh, f * f);
}

// (cos, sin) of 2 pi `turns`, `turns` in [0, 1): the remainder after the nearest quarter turn is at
// most pi/4.
std::pair<double, double> cos_sin_of_turns(double turns) {
    constexpr std::array<double, 9> sine{1,
                                         -1. / 6,
                                         1. / 120,
                                         -1. / 5040,
                                         1. / 362880,
                                         -1. / 39916800,
                                         1. / 6227020800,
                                         -1. / 1307674368000,
                                         1. / 355687428096000};
    constexpr std::array<double, 9> cosine{1,
                                           -1. / 2,
                                           1. / 24,
                                           -1. / 720,
                                           1. / 40320,
                                           -1. / 3628800,
                                           1. / 479001600,
                                           -1. / 87178291200,
                                           1. / 20922789888000};
    const auto quarter = static_cast<std::uint32_t>(4 * turns + 0.5);
    const double x = (4 * turns - quarter) * (std::numbers::pi / 2);
    const double s = x * horner(sine, x * x), c = horner(cosine, x * x);
    const std::array<double, 5> around{c, s, -c, -s, c};  // cos(x - q pi/2) for q = 0 to 4
    const std::uint32_t q = quarter & 3;
    return {around[4 - q], around[(5 - q) & 3]};
}

// Box-Muller: two independent standard normals. The added half keeps the uniforms away from 0,
// where the logarithm is infinite.
std::pair<double, double> normal_pair(std::uint32_t first, std::uint32_t second) {
    constexpr double scale = 0x1p-32;
    const double radius = std::sqrt(-2 * natural_log((first + 0.5) * scale));
    const auto [cosine, sine] = cos_sin_of_turns((second + 0.5) * scale);
    return {radius * cosine, radius * sine};
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = 0xd2511f53ULL * counter[0];
        const std::uint64_t b = 0xcd9e8d57ULL * counter[2];
        const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
        const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
        counter = {high(b) ^ counter[1] ^ key[0], low(b), high(a) ^ counter[3] ^ key[1], low(a)};
        key[0] += 0x9e3779b9U;
        key[1] += 0xbb67ae85U;
    }
    return counter;
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name, std::uint64_t index)
    : key_(halves(splitmix64(splitmix64(seed) ^ fnv1a(name)))), index_(index) {}

void RandomStream::refill() {
    const auto block = halves(block_++);
    const auto index = halves(index_);
    words_ = philox4x32({block[0], block[1], index[0], index[1]}, key_);
    used_ = 0;
}

std::uint32_t RandomStream::next32() {
    if (used_ == 4) refill();
    return words_[used_++];
}

void RandomStream::skip(std::uint64_t count) {
    const auto left = static_cast<std::uint64_t>(4 - used_);
    if (count < left) {
        used_ += static_cast<int>(count);
        return;
    }
    block_ += (count - left) / 4;
    used_ = 4;
    for (std::uint64_t i = 0; i < (count - left) % 4; ++i) next32();
}

std::uint64_t RandomStream::next64() {
    const std::uint64_t low = next32();
    return low | static_cast<std::uint64_t>(next32()) << 32;
}

double RandomStream::uniform() { return static_cast<double>(next64() >> 11) * 0x1p-53; }

std::uint64_t RandomStream::below(std::uint64_t bound) {
    // Reject the lowest 2^64 mod bound values, so that every remainder is equally likely.
    const std::uint64_t rejected = (0 - bound) % bound;
    for (;;) {
        const std::uint64_t word = next64();
        if (word >= rejected) return word % bound;
    }
}

double RandomStream::normal() {
    if (std::exchange(has_spare_, false)) return spare_normal_;
    const std::uint32_t first = next32();
    const auto [now, later] = normal_pair(first, next32());
    spare_normal_ = later;
    has_spare_ = true;
    return now;
}

void RandomStream::fill_normal(std::span<float> out) {
    std::size_t i = 0;
    if (has_spare_ && !out.empty()) out[i++] = static_cast<float>(normal());
    for (; i + 1 < out.size(); i += 2) {
        const std::uint32_t first = next32();
        const auto [now, later] = normal_pair(first, next32());
        out[i] = static_cast<float>(now);
        out[i + 1] = static_cast<float>(later);
    }
    if (i < out.size()) out[i] = static_cast<float>(normal());
}

std::vector<std::int64_t> RandomStream::permutation(std::int64_t count) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[below(i)]);
    return order;
}

}  // namespace atelier::core
