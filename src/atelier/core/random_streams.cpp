#include "atelier/core/random_streams.h"

#include <numeric>
#include <utility>

#include "atelier/core/hash.h"
#include "atelier/core/normal_numbers.h"

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

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
    unsigned int words[4]{counter[0], counter[1], counter[2], counter[3]};
    philox_rounds(words, key[0], key[1]);
    return {words[0], words[1], words[2], words[3]};
}

std::array<std::uint32_t, 2> stream_key(std::uint64_t seed, std::string_view name) {
    return halves(splitmix64(splitmix64(seed) ^ fnv1a(name)));
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name, std::uint64_t index)
    : key_(stream_key(seed, name)), index_(index) {}

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
