#pragma once

#include <algorithm>
#include <cmath>

#include "atelier/ops/norm_kernels.h"

/// The normalisation of one sample, put together from the loops of norm_kernels. Torch-free.
namespace atelier::ops::norm_kernels {

/// Positions that are summed in one go. A sample is cut the same way whoever computes it, so its sums do not depend on the number of threads.
inline std::int64_t chunk_positions(const Sample& s) { return std::max<std::int64_t>(1, 16384 / s.channels); }

inline std::int64_t chunks(const Sample& s) { return (s.positions + chunk_positions(s) - 1) / chunk_positions(s); }

/// Numbers that forward() needs room for.
inline std::size_t forward_room(const Sample& s) { return static_cast<std::size_t>((chunks(s) + 1) * s.channels); }

/// Factors of every channel.
struct Affine {
    const float *a, *b;
};

/// Finds a and b of gain*x^ + offset = a*x + b, x^ the group-normalised x. `gain`, `offset` [channels]; writes `mean`, `inverse_deviation`
/// [groups]; what is returned lies in `work`. `for_each(count, task)` calls task(0) to task(count-1), in any order or at once. Two passes over x for the moments, and sums of what is left
/// above the first position's values, so that a mean far from zero costs no digits.
template <class T, class ForEach>
Affine affine_of(const Loops<T>& loops, const Sample& s, const T* x, const float* gain, const float* offset, float* mean, float* inverse_deviation,
                 float* work, ForEach&& for_each) {
    const std::int64_t channels = s.channels, each = channels / s.groups, count = chunks(s), step = chunk_positions(s);
    const auto in_group = static_cast<double>(each * s.positions);
    float* centre = work;
    float* parts = work + channels;  // a row a chunk
    const auto first = [&](std::int64_t chunk) { return chunk * step * channels; };
    const auto length = [&](std::int64_t chunk) { return std::min(step, s.positions - chunk * step); };
    const auto total = [&](std::int64_t c) {
        double sum = 0;
        for (std::int64_t chunk = 0; chunk < count; ++chunk) sum += parts[chunk * channels + c];
        return sum;
    };

    std::fill_n(parts, channels, 0.0F);
    loops.sum(1, channels, x, parts, centre);
    for_each(count, [&](std::int64_t chunk) { loops.sum(length(chunk), channels, x + first(chunk), centre, parts + chunk * channels); });
    for (std::int64_t g = 0; g < s.groups; ++g) {
        double sum = 0;
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c) sum += total(c) + static_cast<double>(s.positions) * static_cast<double>(centre[c]);
        mean[g] = static_cast<float>(sum / in_group);
        std::fill_n(centre + g * each, each, mean[g]);
    }
    for_each(count, [&](std::int64_t chunk) { loops.sum_squares(length(chunk), channels, x + first(chunk), centre, parts + chunk * channels); });
    for (std::int64_t g = 0; g < s.groups; ++g) {
        double sum = 0;
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c) sum += total(c);
        inverse_deviation[g] = static_cast<float>(1.0 / std::sqrt(sum / in_group + static_cast<double>(s.eps)));
    }
    float* a = centre;
    float* b = parts;
    for (std::int64_t c = 0; c < channels; ++c) {
        a[c] = gain[c] * inverse_deviation[c / each];
        b[c] = offset[c] - a[c] * mean[c / each];
    }
    return {a, b};
}

/// Has `write(first, positions)` write the results of some positions, from the number `first` on. They depend on no sum's order, so small samples may be cut finer than for sums.
template <class Write, class ForEach>
void each_piece(const Sample& s, const Write& write, ForEach&& for_each) {
    const std::int64_t stride = std::max<std::int64_t>(1, std::min(chunk_positions(s), 4096 / s.channels));
    for_each((s.positions + stride - 1) / stride,
             [&](std::int64_t piece) { write(piece * stride * s.channels, std::min(stride, s.positions - piece * stride)); });
}

/// y = [silu](gain*x^ + offset).
template <class T, class ForEach>
void forward(const Loops<T>& loops, const Sample& s, const T* x, const float* gain, const float* offset, T* y, float* mean,
             float* inverse_deviation, float* work, ForEach&& for_each) {
    const Affine with = affine_of(loops, s, x, gain, offset, mean, inverse_deviation, work, for_each);
    each_piece(s, [&](std::int64_t first, std::int64_t positions) { loops.affine(positions, s.channels, x + first, with.a, with.b, s.silu, y + first); }, for_each);
}

/// The same in whole steps, `steps` to a unit.
template <class T, class ForEach>
void forward_quantised(const Loops<T>& loops, const Sample& s, const T* x, const float* gain, const float* offset, float steps, std::int8_t* y,
                       float* mean, float* inverse_deviation, float* work, ForEach&& for_each) {
    const Affine with = affine_of(loops, s, x, gain, offset, mean, inverse_deviation, work, for_each);
    const auto write = [&](std::int64_t first, std::int64_t positions) {
        loops.quantise(positions, s.channels, x + first, with.a, with.b, s.silu, steps, y + first);
    };
    each_piece(s, write, for_each);
}

/// One after the other.
inline constexpr auto in_turn = [](std::int64_t count, auto&& task) {
    for (std::int64_t i = 0; i < count; ++i) task(i);
};

/// Calls one(sample, for_each) for every sample: samples side by side where there are enough for all threads, else the threads share each sample's
/// chunks. `at_once(count, task)` runs tasks on the threads.
template <class AtOnce, class One>
void each_sample(std::int64_t samples, std::int64_t threads, const AtOnce& at_once, const One& one) {
    if (samples >= threads) at_once(samples, [&](std::int64_t i) { one(i, in_turn); });
    else in_turn(samples, [&](std::int64_t i) { one(i, at_once); });
}

}  // namespace atelier::ops::norm_kernels
