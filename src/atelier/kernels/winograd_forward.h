#pragma once

#include <algorithm>
#include <array>

#include "atelier/kernels/winograd_kernels.h"
#include "atelier/kernels/workspace.h"

/// 3x3 convolutions of whole images, built from the loops of winograd_kernels. Torch-free.
namespace atelier::kernels::winograd_kernels {

/// Images [samples,height,width,in] that become [samples,height,width,out]: stride 1, zero padding
/// of one pixel.
struct Images {
    std::int64_t samples, height, width, in, out;

    std::int64_t down() const { return (height + tile - 1) / tile; }
    std::int64_t across() const { return (width + tile - 1) / tile; }
    std::int64_t tiles() const { return samples * down() * across(); }
};

/// Whether the loops support these sizes and at least half of the tiles' pixels are inside an
/// image.
inline bool fits(const Images& s) {
    return s.in % panel == 0 && s.out % panel == 0 &&
           2 * s.samples * s.height * s.width >= s.tiles() * tile * tile;
}

/// Whether Winograd is faster than a direct convolution. It is not where fewer than half of the
/// tiles' pixels are inside the image, nor where the transformed filters, four times as large, are
/// so many for so few tiles that reading them outweighs the saved products. Depends on the size of
/// one sample only, so that results do not depend on the batch.
inline bool pays(std::int64_t height, std::int64_t width, std::int64_t in, std::int64_t out) {
    const Images one{1, height, width, in, out};
    if (!fits(one)) return false;
    const std::int64_t filters = in * out;
    return one.tiles() >= 64 || (one.tiles() >= 16 && filters <= 1 << 19) ||
           (one.tiles() >= 4 && filters <= 1 << 14);
}

/// Some of the images' tiles, which one thread computes at a time.
struct Range {
    std::int64_t first, count;
};

/// How many of `tiles` are computed at a time: enough to reuse a panel of filters, few enough to
/// stay in cache, and divided evenly over `threads`.
inline std::int64_t block_tiles(std::int64_t tiles, std::int64_t threads) {
    constexpr std::int64_t max_tiles = 42;
    const std::int64_t rounds = (tiles + max_tiles * threads - 1) / (max_tiles * threads);
    return std::max<std::int64_t>(1, (tiles + rounds * threads - 1) / (rounds * threads));
}

/// Distance in floats between consecutive points in a block of `count` tiles; not a power of two,
/// as in Filters.
inline std::int64_t block_stride(std::int64_t count, std::int64_t channels) {
    return count * channels + panel;
}

/// Floats of workspace that a block of `count` tiles needs.
inline std::size_t block_workspace(const Images& s, std::int64_t count) {
    return static_cast<std::size_t>(
        points * (block_stride(count, s.in) + block_stride(count, s.out)) + s.in + s.out);
}

/// Pointers to the rows of `channels` elements of a square of `side`*`side` pixels of an image,
/// whose first pixel is at (top,left); `outside` is the row for pixels outside the image.
template <int side, class T>
std::array<T*, side * side> pixels(const Images& s, std::int64_t channels, T* image,
                                   std::int64_t top, std::int64_t left, T* outside) {
    std::array<T*, side * side> at;
    for (int i = 0; i < side; ++i) {
        for (int j = 0; j < side; ++j) {
            const std::int64_t y = top + i, x = left + j;
            const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
            at[static_cast<std::size_t>(i * side + j)] =
                inside ? image + (y * s.width + x) * channels : outside;
        }
    }
    return at;
}

/// Calls one(t, at) for the range's tiles t = 0 to count-1, `at` being their pixels (`margin` 0) or
/// those of their input windows (`margin` 1).
template <int side, int margin, class T, class One>
void for_each_tile(const Images& s, Range range, std::int64_t channels, T* images, T* outside,
                   const One& one) {
    for (std::int64_t t = 0; t < range.count; ++t) {
        const std::int64_t id = range.first + t, column = id % s.across(),
                           row = id / s.across() % s.down(), sample = id / s.across() / s.down();
        const auto at = pixels<side>(s, channels, images + sample * s.height * s.width * channels,
                                     row * tile - margin, column * tile - margin, outside);
        one(t, at.data());
    }
}

/// y = x * filters + bias in a range of tiles. `filters` from transform_filters; `work` holds
/// block_workspace floats.
template <class T>
void convolve(const Table& table, const Loops<T>& loops, const Images& s, Range range, const T* x,
              const float* filters, const float* bias, T* y, float* work) {
    const std::int64_t in_block = block_stride(range.count, s.in),
                       out_block = block_stride(range.count, s.out);
    const std::int64_t stride = Filters{s.in, s.out}.stride();
    float *values = work, *products = values + points * in_block,
          *outside = products + points * out_block;
    std::fill_n(outside, s.in, 0.0F);
    for_each_tile<window, 1>(s, range, s.in, x, reinterpret_cast<const T*>(outside),
                             [&](std::int64_t t, const T* const* at) {
                                 loops.transform_input(s.in, at, in_block, values + t * s.in);
                             });
    for (std::int64_t p = 0; p < points; ++p) {
        table.multiply(range.count, s.in, s.out, values + p * in_block, s.in, filters + p * stride,
                       s.in * panel, false, products + p * out_block, s.out);
    }
    for_each_tile<tile, 0>(s, range, s.out, y, reinterpret_cast<T*>(outside + s.in),
                           [&](std::int64_t t, T* const* at) {
                               loops.transform_output(s.out, products + t * s.out, out_block, bias,
                                                      at);
                           });
}

/// The same for all tiles. `parallel(count, task)` runs task(0) to task(count-1) on `threads`
/// threads.
template <class T, class Parallel>
void convolve_all(const Table& table, const Loops<T>& loops, const Images& s, std::int64_t threads,
                  const Parallel& parallel, const T* x, const float* filters, const float* bias,
                  T* y) {
    const std::int64_t step = block_tiles(s.tiles(), threads);
    parallel((s.tiles() + step - 1) / step, [&](std::int64_t block) {
        const Range range{block * step, std::min(step, s.tiles() - block * step)};
        convolve(table, loops, s, range, x, filters, bias, y,
                 thread_workspace(block_workspace(s, step)));
    });
}

/// The gradient with respect to the transformed filters, [36 at Filters' stride,in,out], from a
/// range of tiles of x and of the gradient dy; added to `gradients` if `add`.
template <class T>
void weight_gradient(const Table& table, const Loops<T>& loops, const Images& s, Range range,
                     const T* x, const T* dy, bool add, float* gradients, float* work) {
    const std::int64_t in_block = block_stride(range.count, s.in),
                       out_block = block_stride(range.count, s.out),
                       stride = Filters{s.in, s.out}.stride();
    float *values = work, *products = values + points * in_block,
          *outside = products + points * out_block;
    std::fill_n(outside, s.in + s.out, 0.0F);
    const T* zeros = reinterpret_cast<const T*>(outside);
    for_each_tile<window, 1>(s, range, s.in, x, zeros, [&](std::int64_t t, const T* const* at) {
        loops.transform_input(s.in, at, in_block, values + t * s.in);
    });
    for_each_tile<tile, 0>(s, range, s.out, dy, zeros, [&](std::int64_t t, const T* const* at) {
        loops.transform_gradient(s.out, at, out_block, products + t * s.out);
    });
    for (std::int64_t p = 0; p < points; ++p) {
        table.multiply_transposed(range.count, s.in, s.out, values + p * in_block,
                                  products + p * out_block, add, gradients + p * stride);
    }
}

}  // namespace atelier::kernels::winograd_kernels
