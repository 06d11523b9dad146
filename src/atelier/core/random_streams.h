#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace atelier::core {

/// A named stream of random numbers that is a pure function of (seed, name, index): the same at any
/// thread count, on any machine and after any restart, so that a checkpoint needs no generator
/// state. Philox-4x32-10 (Salmon et al. 2011): key from seed and name, counter from index and
/// position.
///
/// Names say what the numbers are for ("noise", "teacher/sigma"); the index is a step or an image's
/// number.
class RandomStream {
public:
    RandomStream(std::uint64_t seed, std::string_view name, std::uint64_t index = 0);

    std::uint32_t next32();
    std::uint64_t next64();

    /// Uniform in [0, 1), 53 bits.
    double uniform();

    /// Uniform in 0..bound-1 without bias; `bound` >= 1.
    std::uint64_t below(std::uint64_t bound);

    /// Standard normal numbers (Box-Muller on 32-bit uniforms).
    double normal();
    void fill_normal(std::span<float> out);

    /// Passes over `count` 32-bit words; a normal number takes one, and numbers of 64 bits two.
    void skip(std::uint64_t count);

    /// What philox4x32 makes the words of a stream from: words 4 b to 4 b + 3 from this key and the
    /// counter (b, index), each as two halves, the lower first.
    const std::array<std::uint32_t, 2>& key() const { return key_; }
    std::uint64_t index() const { return index_; }

    /// A uniformly random order of 0..count-1 (Fisher-Yates).
    std::vector<std::int64_t> permutation(std::int64_t count);

private:
    void refill();

    std::array<std::uint32_t, 2> key_;
    std::uint64_t index_;
    std::uint64_t block_ = 0;
    std::array<std::uint32_t, 4> words_{};
    int used_ = 4;
    double spare_normal_ = 0;
    bool has_spare_ = false;
};

/// The key of the stream of `seed` and `name`, for those who compute its numbers elsewhere
/// (kernels/gpu). Numbers 4b to 4b+3 come from the block with the counter (b, index), each as two
/// words of 32 bits with the lower first.
std::array<std::uint32_t, 2> stream_key(std::uint64_t seed, std::string_view name);

/// The Philox-4x32-10 bijection itself, for tests against published vectors.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

}  // namespace atelier::core
