#include <cmath>

#include "atelier/backends/native/program_ops.h"
#include "atelier/kernels/attention_kernels.h"
#include "atelier/kernels/row_kernels.h"
#include "atelier/kernels/winograd_forward.h"

// The products of ProgramOps: convolutions, linear layers and attention.
namespace atelier::backends {

namespace {

namespace loops = kernels::winograd_kernels;
using loops::panel;

const loops::Table& products() {
    static const loops::Table& best = loops::best();
    return best;
}

std::int64_t panels_of(std::int64_t columns) { return (columns + panel - 1) / panel; }

std::int64_t ceil_div(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

/// `rows` [O,...], zero-padded to whole panels.
Tensor padded_to_panels(const Tensor& rows) {
    if (rows.size(0) % panel == 0) return rows;
    auto sizes = rows.sizes().vec();
    sizes[0] = panels_of(sizes[0]) * panel;
    Tensor padded = at::zeros(sizes, rows.options());
    padded.narrow(0, 0, rows.size(0)).copy_(rows);
    return padded;
}

/// [O,I,k,k] -> panels [O/16,k*k*I,16].
Tensor panels_of_filters(const Tensor& weight) {
    const Tensor padded = padded_to_panels(weight);
    return padded
        .view({padded.size(0) / panel, panel, weight.size(1), weight.size(2), weight.size(3)})
        .permute({0, 3, 4, 2, 1})
        .contiguous();
}

/// [O,I,3,3] -> panels [O/16,I,9,16].
Tensor filters_by_panel(const Tensor& weight) {
    return weight.view({weight.size(0) / panel, panel, weight.size(1), 9})
        .permute({0, 2, 3, 1})
        .contiguous();
}

struct Winograd {
    loops::Images one;  // of one sample
    Tensor filters, bias, zeros;
    Program::Slot x, y, values;
};

/// Input channels whose filters are transformed at a time, so that they stay in the innermost
/// cache.
constexpr std::int64_t channel_block = 32;
/// The maximum number of tiles that all threads process, each with the filters of other panels.
constexpr std::int64_t shared_tiles = 64;

/// Whether threads divide the filters rather than the tiles: then each thread reads its part of the
/// filters and, from other caches, half of the values; otherwise the other way around.
bool shares_filters(const loops::Images& s) {
    return s.tiles() <= shared_tiles && s.out > 4 * s.tiles();
}

/// A thread's workspace: transformed tiles of x, transformed filters of one row of points,
/// products, and pixels outside the image.
struct WinogradWorkspace {
    std::int64_t values_step, filters_step, sums_step;
    float *filters, *sums, *outside, *values;

    WinogradWorkspace(kernels::Workspace& workspace, const loops::Images& s, std::int64_t tiles,
                      std::int64_t panels, bool with_values)
        : values_step(loops::block_stride(tiles, s.in)),
          filters_step(panels * std::min(s.in, channel_block) * panel + panel),
          sums_step(loops::block_stride(tiles, panels * panel)) {
        const std::int64_t before = loops::window * filters_step,
                           sums_size = loops::points * sums_step, width = panels * panel;
        filters = workspace.reserve(static_cast<std::size_t>(
            before + sums_size + width + (with_values ? loops::points * values_step : 0)));
        sums = filters + before;
        outside = sums + sums_size;
        values = outside + width;
    }
};

void transform_tiles(const Winograd& w, const loops::Images& s, loops::Range range, const float* x,
                     std::int64_t step, float* values) {
    loops::for_each_tile<loops::window, 1>(s, range, s.in, x, w.zeros.const_data_ptr<float>(),
                                           [&](std::int64_t t, const float* const* at) {
                                               products().float32.transform_input(
                                                   s.in, at, step, values + t * s.in);
                                           });
}

/// Computes some panels of results of some tiles, whose transformed values are `values`. Filters
/// are transformed here, in cache, which is faster than reading four times as much.
void compute_panels(const Winograd& w, const loops::Images& s, loops::Range range,
                    std::int64_t first_panel, std::int64_t panels, const WinogradWorkspace& at,
                    const float* values, float* y) {
    const std::int64_t width = panels * panel;
    for (std::int64_t channel = 0; channel < s.in; channel += channel_block) {
        const std::int64_t count = std::min(channel_block, s.in - channel);
        for (std::int64_t point = 0; point < loops::points; ++point) {
            for (std::int64_t p = 0; point % loops::window == 0 && p < panels; ++p) {
                const float* from = w.filters.const_data_ptr<float>() +
                                    ((first_panel + p) * s.in + channel) * 9 * panel;
                products().transform_panel(count, from, point / loops::window, at.filters_step,
                                           at.filters + p * count * panel);
            }
            products().multiply(range.count, count, width,
                                values + point * at.values_step + channel, s.in,
                                at.filters + point % loops::window * at.filters_step, count * panel,
                                channel > 0, at.sums + point * at.sums_step, width);
        }
    }
    const float* bias = w.bias.const_data_ptr<float>() + first_panel * panel;
    loops::for_each_tile<loops::tile, 0>(s, range, s.out, y + first_panel * panel, at.outside,
                                         [&](std::int64_t t, float* const* pixels) {
                                             products().float32.transform_output(
                                                 width, at.sums + t * width, at.sums_step, bias,
                                                 pixels);
                                         });
}

/// A thread's own tiles, in blocks that fit into its cache.
void convolve_own_tiles(const Winograd& w, const loops::Images& s, loops::Range own,
                        kernels::Workspace& workspace, const float* x, float* y) {
    constexpr std::int64_t cache = 1 << 19;  // floats
    const std::int64_t max_tiles = std::clamp<std::int64_t>(cache / (loops::points * s.in), 16, 64),
                       blocks = ceil_div(own.count, max_tiles);
    for (std::int64_t block = 0; block < blocks; ++block) {
        const std::int64_t begin = block * own.count / blocks,
                           count = (block + 1) * own.count / blocks - begin;
        const loops::Range range{own.first + begin, count};
        const WinogradWorkspace at(workspace, s, count, 2, true);
        transform_tiles(w, s, range, x, at.values_step, at.values);
        for (std::int64_t p = 0; p < s.out / panel; p += 2)
            compute_panels(w, s, range, p, std::min<std::int64_t>(2, s.out / panel - p), at,
                           at.values, y);
    }
}

void convolve(const Winograd& w, const Program::Run& run) {
    loops::Images s = w.one;
    s.samples = run.samples;
    const std::int64_t tiles = s.tiles();
    const auto slice = run.slice(tiles);
    const loops::Range own{slice.begin, slice.end - slice.begin};
    if (run.threads == 1 || !shares_filters(s))
        return convolve_own_tiles(w, s, own, run.workspace, run.at(w.x), run.at(w.y));
    float* values = run.at(w.values);
    const std::int64_t step = loops::block_stride(tiles, s.in), panels = s.out / panel,
                       groups = std::min(panels, run.threads);
    transform_tiles(w, s, own, run.at(w.x), step, values + own.first * s.in);
    run.wait();
    run.for_each(groups, [&](std::int64_t group) {
        const std::int64_t end = (group + 1) * panels / groups;
        for (std::int64_t p = group * panels / groups; p < end; p += 2) {
            const std::int64_t count = std::min<std::int64_t>(2, end - p);
            compute_panels(w, s, {0, tiles}, p, count,
                           WinogradWorkspace(run.workspace, s, tiles, count, false), values,
                           run.at(w.y));
        }
    });
}

/// Whether Winograd is faster: at least half of the tiles' pixels must be inside the image, and
/// there must be at least four tiles to make up for transforming the filters. Depends on the size
/// of one sample only, so that results do not depend on the batch.
bool winograd_pays(const loops::Images& one) { return loops::fits(one) && one.tiles() >= 4; }

struct Direct {
    graph::Conv2d layer;
    std::int64_t in, height, width, out_height, out_width;  // of one sample
    Tensor panels, bias;                                    // padded to whole panels
    Program::Slot x, y;

    std::int64_t inner() const { return layer.kernel * layer.kernel * in; }
    bool pointwise() const { return layer.kernel == 1 && layer.stride == 1 && layer.padding == 0; }
};

/// Gathers the inputs of the filters at `count` pixels of the result, from pixel `first` on: one
/// row per pixel.
void gather(const Direct& d, const float* x, std::int64_t first, std::int64_t count, float* rows) {
    for (std::int64_t i = first; i < first + count; ++i) {
        const std::int64_t across = i % d.out_width, down = i / d.out_width % d.out_height,
                           sample = i / d.out_width / d.out_height;
        for (std::int64_t ky = 0; ky < d.layer.kernel; ++ky) {
            const std::int64_t row = down * d.layer.stride - d.layer.padding + ky;
            for (std::int64_t kx = 0; kx < d.layer.kernel; ++kx, rows += d.in) {
                const std::int64_t column = across * d.layer.stride - d.layer.padding + kx;
                const bool inside = row >= 0 && row < d.height && column >= 0 && column < d.width;
                if (inside)
                    std::copy_n(x + ((sample * d.height + row) * d.width + column) * d.in, d.in,
                                rows);
                else std::fill_n(rows, d.in, 0.0F);
            }
        }
    }
}

/// Pixels `first` to first+count-1 of some panels of results.
void compute_pixels(const Direct& d, const Program::Run& run, std::int64_t first,
                    std::int64_t count, std::int64_t first_panel, std::int64_t panels) {
    const std::int64_t out = d.layer.out_channels, column = first_panel * panel,
                       width = panels * panel, columns = std::min(width, out - column);
    const bool in_place = columns == width;
    float* const gathered = run.workspace.reserve(static_cast<std::size_t>(
        (d.pointwise() ? 0 : count * d.inner()) + (in_place ? 0 : count * width)));
    const float* rows = run.at(d.x) + first * d.in;
    if (!d.pointwise()) {
        gather(d, run.at(d.x), first, count, gathered);
        rows = gathered;
    }
    float *y = run.at(d.y) + first * out + column,
          *sums = in_place ? y : gathered + (d.pointwise() ? 0 : count * d.inner());
    const std::int64_t step = in_place ? out : width;
    const float* bias = d.bias.const_data_ptr<float>() + column;
    for (std::int64_t i = 0; i < count; ++i) std::copy_n(bias, width, sums + i * step);
    products().multiply(count, d.inner(), width, rows, d.inner(),
                        d.panels.const_data_ptr<float>() + column * d.inner(), d.inner() * panel,
                        true, sums, step);
    for (std::int64_t i = 0; !in_place && i < count; ++i)
        std::copy_n(sums + i * width, columns, y + i * out);
}

void convolve(const Direct& d, const Program::Run& run) {
    constexpr std::int64_t pixel_block = 56;
    const std::int64_t pixels = run.samples * d.out_height * d.out_width,
                       panels = panels_of(d.layer.out_channels);
    // Threads that divide the pixels each read all weights; threads that divide the panels each
    // read all pixels, most of them from other caches.
    const std::int64_t groups =
        d.inner() * d.layer.out_channels > 4 * pixels * d.in ? std::min(run.threads, panels) : 1;
    const std::int64_t rounds = ceil_div(pixels, pixel_block * run.threads),
                       pieces = groups > 1 ? ceil_div(pixels, pixel_block)
                                           : std::min(pixels, rounds * run.threads);
    run.for_each(groups * pieces, [&](std::int64_t task) {
        const std::int64_t group = task / pieces, piece = task % pieces,
                           first = piece * pixels / pieces, end = (piece + 1) * pixels / pieces;
        const std::int64_t from = group * panels / groups, until = (group + 1) * panels / groups;
        compute_pixels(d, run, first, end - first, from, until - from);
    });
}

struct Attention {
    std::int64_t heads, width, tokens;  // elements per head and token
    Program::Slot qkv, y, q, k, v;

    std::int64_t panels() const { return panels_of(tokens); }
    std::int64_t q_size() const { return tokens * width; }
    std::int64_t k_size() const { return panels() * width * panel; }
    std::int64_t v_size() const { return panels_of(width) * tokens * panel; }
};

/// Splits a token of one head: a row of q, a column of k's panels, a row of v's. Beyond the last
/// token, columns are zero.
void split_token(const Attention& a, const float* qkv, std::int64_t token, float* q, float* k,
                 float* v) {
    float* const column = k + token / panel * a.width * panel + token % panel;
    if (token >= a.tokens) {
        for (std::int64_t j = 0; j < a.width; ++j) column[j * panel] = 0;
        return;
    }
    for (std::int64_t j = 0; j < a.width; ++j) {
        q[token * a.width + j] = qkv[3 * j];
        column[j * panel] = qkv[3 * j + 1];
    }
    for (std::int64_t j = 0; j < panels_of(a.width) * panel; ++j) {
        v[(j / panel * a.tokens + token) * panel + j % panel] = j < a.width ? qkv[3 * j + 2] : 0;
    }
}

void attend(const Attention& a, const Program::Run& run) {
    const std::int64_t heads = run.samples * a.heads, slots = a.panels() * panel,
                       width = panels_of(a.width) * panel, channels = a.heads * a.width;
    run.for_each(heads * slots, [&](std::int64_t i) {
        const std::int64_t head = i / slots, token = i % slots, sample = head / a.heads;
        const float* qkv = run.at(a.qkv) +
                           (sample * a.tokens + std::min(token, a.tokens - 1)) * 3 * channels +
                           head % a.heads * 3 * a.width;
        split_token(a, qkv, token, run.at(a.q) + head * a.q_size(), run.at(a.k) + head * a.k_size(),
                    run.at(a.v) + head * a.v_size());
    });
    run.wait();
    constexpr std::int64_t query_block = 56;
    const std::int64_t pieces =
        std::max(ceil_div(a.tokens, query_block), std::min(a.tokens, ceil_div(run.threads, heads)));
    const float factor = 1 / std::sqrt(static_cast<float>(a.width));
    static const auto softmax = kernels::attention_kernels::best().softmax;
    run.for_each(heads * pieces, [&](std::int64_t task) {
        const std::int64_t head = task / pieces, piece = task % pieces,
                           first = piece * a.tokens / pieces,
                           count = (piece + 1) * a.tokens / pieces - first;
        float *scores = run.workspace.reserve(static_cast<std::size_t>(count * (slots + width))),
              *sums = scores + count * slots;
        products().multiply(count, a.width, slots,
                            run.at(a.q) + head * a.q_size() + first * a.width, a.width,
                            run.at(a.k) + head * a.k_size(), a.width * panel, false, scores, slots);
        for (std::int64_t i = 0; i < count; ++i) softmax(a.tokens, factor, scores + i * slots);
        products().multiply(count, a.tokens, width, scores, slots, run.at(a.v) + head * a.v_size(),
                            a.tokens * panel, false, sums, width);
        float* to =
            run.at(a.y) + (head / a.heads * a.tokens + first) * channels + head % a.heads * a.width;
        for (std::int64_t i = 0; i < count; ++i)
            std::copy_n(sums + i * width, a.width, to + i * channels);
    });
}

}  // namespace

void ProgramOps::convolve_by_winograd(const Result& x, const Tensor& weight, const Tensor& bias,
                                      const Result& y) {
    const loops::Images one{1, x.height, x.width, x.channels, y.channels};
    const Program::Slot values =
        program_.allocate(0, loops::points * loops::block_stride(shared_tiles, x.channels));
    const Winograd layer{
        one, filters_by_panel(weight), bias, at::zeros({x.channels}), x.slot, y.slot, values};
    program_.step({x.slot}, [layer](const Program::Run& run) { convolve(layer, run); });
}

ProgramOps::Result ProgramOps::convolved(const Result& x, const Tensor& weight, const Tensor& bias,
                                         const graph::Conv2d& layer, bool image) {
    const auto side = [&](std::int64_t size) {
        return (size + 2 * layer.padding - layer.kernel) / layer.stride + 1;
    };
    const Result y = result(layer.out_channels, side(x.height), side(x.width), image);
    const bool same = layer.kernel == 3 && layer.stride == 1 && layer.padding == 1;
    if (same && winograd_pays({1, x.height, x.width, x.channels, y.channels})) {
        convolve_by_winograd(x, weight, bias, y);
        return y;
    }
    const Direct direct{layer,
                        x.channels,
                        x.height,
                        x.width,
                        y.height,
                        y.width,
                        panels_of_filters(weight),
                        padded_to_panels(bias),
                        x.slot,
                        y.slot};
    program_.step({x.slot}, [direct](const Program::Run& run) { convolve(direct, run); });
    return y;
}

ProgramValue ProgramOps::lower(const graph::Conv2d& layer, const In& in) {
    return convolved(read(in[0]), parameter(layer.name + ".weight"),
                     layer.bias ? parameter(layer.name + ".bias") : at::zeros({layer.out_channels}),
                     layer, true);
}

ProgramValue ProgramOps::lower(const graph::Linear& layer, const In& in) {
    const Tensor bias =
        layer.bias ? parameter(layer.name + ".bias") : at::zeros({layer.out_features});
    const graph::Conv2d pointwise{.out_channels = layer.out_features, .kernel = 1, .padding = 0};
    return convolved(read(in[0]),
                     parameter(layer.name + ".weight").view({layer.out_features, -1, 1, 1}), bias,
                     pointwise, false);
}

ProgramValue ProgramOps::lower(const graph::Attention& layer, const In& in) {
    const std::int64_t heads = layer.heads;
    const Result qkv = read(in[0]), y = result(qkv.channels / 3, qkv.height, qkv.width);
    Attention a{heads, y.channels / heads, y.positions(), qkv.slot, y.slot, 0, 0, 0};
    a.q = program_.allocate(heads * a.q_size());
    a.k = program_.allocate(heads * a.k_size());
    a.v = program_.allocate(heads * a.v_size());
    program_.step({qkv.slot}, [a](const Program::Run& run) { attend(a, run); });
    return y;
}

}  // namespace atelier::backends
