#pragma once

#include <algorithm>
#include <cmath>

#include "atelier/kernels/norm_kernels.h"

/// The forward pass of one sample's normalisation, built from the loops of norm_kernels.
/// Torch-free.
namespace atelier::kernels::norm_kernels {

/// Positions per chunk that is summed at a time. Samples are always divided in the same way, so
/// results do not depend on the number of threads.
inline std::int64_t chunk_positions(const Sample& s) {
    return std::max<std::int64_t>(1, 16384 / s.channels);
}

inline std::int64_t chunks(const Sample& s) {
    return (s.positions + chunk_positions(s) - 1) / chunk_positions(s);
}

/// Floats of workspace that forward() needs.
inline std::size_t forward_workspace(const Sample& s) {
    return static_cast<std::size_t>((chunks(s) + 1) * s.channels);
}

/// Coefficients per channel.
struct Affine {
    const float *a, *b;
};

/// Computes a and b of weight*x^ + bias = a*x + b, where x^ is the group-normalised x. `weight`,
/// `bias` [channels]; writes `mean`, `rstd` [groups]; the result points into `work`.
/// `for_each(count, task)` calls task(0) to task(count-1), in any order or concurrently. Moments
/// take two passes over x, with sums relative to the values of the first position, so that a mean
/// far from zero does not cost precision.
template <class T, class ForEach>
Affine affine_of(const Loops<T>& loops, const Sample& s, const T* x, const float* weight,
                 const float* bias, float* mean, float* rstd, float* work, ForEach&& for_each) {
    const std::int64_t channels = s.channels, each = channels / s.groups, count = chunks(s),
                       step = chunk_positions(s);
    const auto in_group = static_cast<double>(each * s.positions);
    float* centre = work;
    float* parts = work + channels;  // one row per chunk
    const auto first = [&](std::int64_t chunk) { return chunk * step * channels; };
    const auto length = [&](std::int64_t chunk) {
        return std::min(step, s.positions - chunk * step);
    };
    const auto total = [&](std::int64_t c) {
        double sum = 0;
        for (std::int64_t chunk = 0; chunk < count; ++chunk) sum += parts[chunk * channels + c];
        return sum;
    };

    std::fill_n(parts, channels, 0.0F);
    loops.sum(1, channels, x, parts, centre);
    for_each(count, [&](std::int64_t chunk) {
        loops.sum(length(chunk), channels, x + first(chunk), centre, parts + chunk * channels);
    });
    for (std::int64_t g = 0; g < s.groups; ++g) {
        double sum = 0;
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c)
            sum += total(c) + static_cast<double>(s.positions) * static_cast<double>(centre[c]);
        mean[g] = static_cast<float>(sum / in_group);
        std::fill_n(centre + g * each, each, mean[g]);
    }
    for_each(count, [&](std::int64_t chunk) {
        loops.sum_squares(length(chunk), channels, x + first(chunk), centre,
                          parts + chunk * channels);
    });
    for (std::int64_t g = 0; g < s.groups; ++g) {
        double sum = 0;
        for (std::int64_t c = g * each; c < (g + 1) * each; ++c) sum += total(c);
        rstd[g] = static_cast<float>(1.0 / std::sqrt(sum / in_group + static_cast<double>(s.eps)));
    }
    float* a = centre;
    float* b = parts;
    for (std::int64_t c = 0; c < channels; ++c) {
        a[c] = weight[c] * rstd[c / each];
        b[c] = bias[c] - a[c] * mean[c / each];
    }
    return {a, b};
}

/// Calls `write(first, positions)` for chunks of positions, `first` being the index of a chunk's
/// first element. Results do not depend on the order of a sum, so small samples may be divided more
/// finely than for sums.
template <class Write, class ForEach>
void for_each_chunk(const Sample& s, const Write& write, ForEach&& for_each) {
    const std::int64_t stride =
        std::max<std::int64_t>(1, std::min(chunk_positions(s), 4096 / s.channels));
    for_each((s.positions + stride - 1) / stride, [&](std::int64_t chunk) {
        write(chunk * stride * s.channels, std::min(stride, s.positions - chunk * stride));
    });
}

/// y = [silu](weight*x^ + bias).
template <class T, class ForEach>
void forward(const Loops<T>& loops, const Sample& s, const T* x, const float* weight,
             const float* bias, T* y, float* mean, float* rstd, float* work, ForEach&& for_each) {
    const Affine with = affine_of(loops, s, x, weight, bias, mean, rstd, work, for_each);
    for_each_chunk(
        s,
        [&](std::int64_t first, std::int64_t positions) {
            loops.affine(positions, s.channels, x + first, with.a, with.b, s.silu, y + first);
        },
        for_each);
}

/// The same in int8, `steps` per unit.
template <class T, class ForEach>
void forward_quantised(const Loops<T>& loops, const Sample& s, const T* x, const float* weight,
                       const float* bias, float steps, std::int8_t* y, float* mean, float* rstd,
                       float* work, ForEach&& for_each) {
    const Affine with = affine_of(loops, s, x, weight, bias, mean, rstd, work, for_each);
    const auto write = [&](std::int64_t first, std::int64_t positions) {
        loops.quantise(positions, s.channels, x + first, with.a, with.b, s.silu, steps, y + first);
    };
    for_each_chunk(s, write, for_each);
}

/// Runs tasks one after the other.
inline constexpr auto serial_for = [](std::int64_t count, auto&& task) {
    for (std::int64_t i = 0; i < count; ++i) task(i);
};

/// Calls one(sample, for_each) for every sample: in parallel over samples where there are enough
/// for all threads, else over the chunks of each sample. `parallel(count, task)` runs tasks on the
/// threads.
template <class Parallel, class One>
void for_each_sample(std::int64_t samples, std::int64_t threads, const Parallel& parallel,
                     const One& one) {
    if (samples >= threads) parallel(samples, [&](std::int64_t i) { one(i, serial_for); });
    else serial_for(samples, [&](std::int64_t i) { one(i, parallel); });
}

}  // namespace atelier::kernels::norm_kernels
