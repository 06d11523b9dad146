#include "atelier/backends/native/program_ops.h"

#include <cmath>
#include <cstring>
#include <numbers>

#include "atelier/core/error.h"
#include "atelier/graph/sinusoid.h"
#include "atelier/kernels/norm_kernels.h"
#include "atelier/kernels/row_kernels.h"

namespace atelier::backends {

namespace {

const kernels::row_kernels::Table& rows_table() {
    static const kernels::row_kernels::Table& best = kernels::row_kernels::best();
    return best;
}

/// The affine map per channel that follows a normalisation: a row [C] for all samples, several rows
/// to choose from, or scale and shift computed by the run.
struct Modulation {
    Tensor weight, bias;                       // [R,C]
    std::optional<Program::Slot> scale_shift;  // [2C] per sample

    /// Weight and bias of a sample, written to `buffer` (2C floats) where they must be computed.
    std::pair<const float*, const float*> of(const Program::Run& run, std::int64_t sample,
                                             float* buffer) const {
        const std::int64_t channels = weight.size(1);
        const float *weights = weight.const_data_ptr<float>(),
                    *biases = bias.const_data_ptr<float>();
        if (!scale_shift) {
            const std::int64_t row = weight.size(0) == 1 ? 0 : run.rows[sample];
            return {weights + row * channels, biases + row * channels};
        }
        const float* scale = run.at(*scale_shift) + sample * 2 * channels;
        for (std::int64_t c = 0; c < channels; ++c) {
            buffer[c] = (1 + scale[c]) * weights[c];
            buffer[channels + c] = (1 + scale[c]) * biases[c] + scale[channels + c];
        }
        return {buffer, buffer + channels};
    }
};

/// Parts of a sample whose moments are summed by one thread each; their number does not depend on
/// the threads, so neither do results.
constexpr std::int64_t parts = 8;

struct Norm {
    kernels::norm_kernels::Sample sample;
    Modulation modulation;
    Program::Slot x, y, moments;

    std::int64_t elements() const { return sample.positions * sample.channels; }
};

/// a and b of weight*x^ + bias = a*x + b for the channels of sample `i` [2C], from the moments of x
/// relative to its first pixel.
const float* affine_of(const Norm& n, const Program::Run& run, std::int64_t i) {
    const kernels::norm_kernels::Sample& s = n.sample;
    const std::int64_t channels = s.channels, each = channels / s.groups;
    float *a = run.workspace.reserve(static_cast<std::size_t>(6 * channels)), *b = a + channels,
          *sums = b + channels;
    const float *x = run.at(n.x) + i * n.elements(),
                *moments = run.at(n.moments) + i * parts * 2 * channels;
    const auto [weight, bias] = n.modulation.of(run, i, sums + 2 * channels);
    std::copy_n(moments, 2 * channels, sums);
    for (std::int64_t part = 1; part < parts; ++part)
        rows_table().add(2 * channels, sums, moments + part * 2 * channels, 1, sums);
    const auto positions = static_cast<double>(s.positions),
               in_group = positions * static_cast<double>(each);
    for (std::int64_t first = 0; first < channels; first += each) {
        double mean = 0, square = 0;
        for (std::int64_t c = first; c < first + each; ++c) mean += positions * x[c] + sums[c];
        mean /= in_group;
        for (std::int64_t c = first; c < first + each; ++c) {
            const double start = x[c] - mean;
            square += sums[channels + c] + start * (2 * sums[c] + positions * start);
        }
        const auto inverse = static_cast<float>(
            1 / std::sqrt(std::max(0.0, square / in_group) + static_cast<double>(s.eps)));
        for (std::int64_t c = first; c < first + each; ++c) {
            a[c] = weight[c] * inverse;
            b[c] = bias[c] - a[c] * static_cast<float>(mean);
        }
    }
    return a;
}

/// Every thread sums and writes the pixels that it owns in the adjacent steps too, so that they
/// stay in its cache; threads only exchange moments.
void normalise(const Norm& n, const Program::Run& run) {
    static const kernels::norm_kernels::Loops<float>& loops = kernels::norm_kernels::best().float32;
    const kernels::norm_kernels::Sample& s = n.sample;
    const float* x = run.at(n.x);
    run.for_each(run.samples * parts, [&](std::int64_t i) {
        const float* sample = x + i / parts * n.elements();
        const std::int64_t begin = i % parts * s.positions / parts,
                           end = (i % parts + 1) * s.positions / parts;
        rows_table().moments(end - begin, s.channels, sample + begin * s.channels, sample,
                             run.at(n.moments) + i * 2 * s.channels);
    });
    run.wait();
    const auto own = run.slice(run.samples * s.positions);
    for (std::int64_t first = own.begin; first < own.end;) {
        const std::int64_t i = first / s.positions, end = std::min(own.end, (i + 1) * s.positions);
        const float* a = affine_of(n, run, i);
        loops.affine(end - first, s.channels, x + first * s.channels, a, a + s.channels, s.silu,
                     run.at(n.y) + first * s.channels);
        first = end;
    }
}

/// The input pixels that contribute to one pixel of a resampled image, along one axis.
struct Taps {
    std::int64_t count = 0, at[4] = {};
    float weight[4] = {};

    void add(std::int64_t pixel, std::int64_t size, float w) {
        if (pixel < 0 || pixel >= size) return;
        at[count] = pixel;
        weight[count++] = w;
    }
};

Taps taps_of(graph::Resample mode, std::int64_t out, std::int64_t size) {
    constexpr float smooth[4] = {1, 3, 3, 1};
    Taps taps;
    if (mode == graph::Resample::up) taps.add(out / 2, size, 1);
    for (std::int64_t i = 0; mode == graph::Resample::down && i < 2; ++i)
        taps.add(2 * out + i, size, 0.5F);
    for (std::int64_t i = 0; i < 4; ++i) {
        if (mode == graph::Resample::smooth_down) taps.add(2 * out - 1 + i, size, smooth[i] / 8);
        if (mode == graph::Resample::smooth_down_valid) taps.add(2 * out + i, size, smooth[i] / 8);
        if (mode == graph::Resample::smooth_up && (out + 1 - i) % 2 == 0)
            taps.add((out + 1 - i) / 2, size, smooth[i] / 4);
    }
    return taps;
}

std::int64_t resampled(graph::Resample mode, std::int64_t size) {
    if (mode == graph::Resample::up || mode == graph::Resample::smooth_up) return 2 * size;
    return mode == graph::Resample::smooth_down_valid ? size / 2 - 1 : size / 2;
}

/// to[j*rows+i] = from[i*columns+j]
void transposed(std::int64_t rows, std::int64_t columns, const float* from, float* to) {
    for (std::int64_t j = 0; j < columns; ++j) {
        for (std::int64_t i = 0; i < rows; ++i) to[j * rows + i] = from[i * columns + j];
    }
}

}  // namespace

ProgramOps::Result ProgramOps::result(std::int64_t channels, std::int64_t height,
                                      std::int64_t width, bool image) {
    return {program_.allocate(channels * height * width), channels, height, width, image};
}

Tensor ProgramOps::parameter(const std::string& name) const {
    const Tensor& tensor = parameters_.at(name);
    if (!tensor.is_floating_point() || !tensor.device().is_cpu())
        core::fail("{}: the native engine reads floating-point weights on the CPU", name);
    const Tensor floats = tensor.to(at::kFloat).contiguous();
    return floats.dim() == 1 ? floats.clone()
                             : floats;  // larger ones are copied when packed into panels
}

ProgramValue ProgramOps::input(std::size_t index, const graph::Shape& sample) {
    const bool image = sample.size() == 3;
    const Result to = image ? result(sample[0], sample[1], sample[2])
                            : result(sample.empty() ? 1 : sample[0], 1, 1, false);
    program_.step({}, [=](const Program::Run& run) {
        const auto transpose = [&](std::int64_t i) {
            transposed(to.channels, to.positions(), run.inputs[index] + i * to.elements(),
                       run.at(to.slot) + i * to.elements());
        };
        run.for_each(run.samples, transpose);
    });
    return to;
}

Program ProgramOps::compiled(const graph::Graph& graph, const std::vector<ProgramValue>& inputs) {
    const Result from = read(lower_folded(graph, parameters_, *this, inputs)[0]);
    program_.step({from.slot}, [=](const Program::Run& run) {
        run.for_each(run.samples, [&](std::int64_t i) {
            transposed(from.positions(), from.channels, run.at(from.slot) + i * from.elements(),
                       run.output + i * from.elements());
        });
    });
    program_.finish();
    return std::move(program_);
}

ProgramOps::Result ProgramOps::read(const ProgramValue& x) {
    if (const auto* computed = std::get_if<Result>(&x)) return *computed;
    const Tensor constant = std::get<Tensor>(x).to(at::kFloat).flatten(1).contiguous();
    const std::int64_t width = constant.size(1);
    const Result to = result(width, 1, 1, false);
    program_.step({}, [=](const Program::Run& run) {
        run.for_each(run.samples, [&](std::int64_t i) {
            std::copy_n(constant.const_data_ptr<float>() +
                            (constant.size(0) == 1 ? 0 : run.rows[i]) * width,
                        width, run.at(to.slot) + i * width);
        });
    });
    return to;
}

ProgramValue ProgramOps::lower(const graph::GroupNorm& layer, const In& in) {
    const std::string& name = layer.name;
    const Result x = read(in[0]);
    Modulation with{parameter(name + ".weight").view({1, -1}),
                    parameter(name + ".bias").view({1, -1}), std::nullopt};
    std::vector<Program::Slot> reads{x.slot};
    const auto* constant = in.count() > 1 ? std::get_if<Tensor>(&in[1]) : nullptr;
    if (constant) {
        const auto halves = constant->to(at::kFloat).chunk(2, 1);
        const Tensor factor = halves[0] + 1;
        with.bias = at::addcmul(halves[1], factor, with.bias).contiguous();
        with.weight = (factor * with.weight).contiguous();
    } else if (in.count() > 1) {
        with.scale_shift = read(in[1]).slot;
        reads.push_back(*with.scale_shift);
    }
    const kernels::norm_kernels::Sample sample{x.positions(), x.channels, layer.groups,
                                               static_cast<float>(layer.eps), layer.silu};
    const Result y = like(x);
    const Norm norm{sample, with, x.slot, y.slot, program_.allocate(parts * 2 * x.channels)};
    program_.step(std::move(reads), [norm](const Program::Run& run) { normalise(norm, run); });
    return y;
}

ProgramValue ProgramOps::lower(const graph::Resampling& layer, const In& in) {
    const graph::Resample mode = layer.mode;
    const Result x = read(in[0]),
                 y = result(x.channels, resampled(mode, x.height), resampled(mode, x.width));
    std::vector<Taps> down, across;
    for (std::int64_t i = 0; i < y.height; ++i) down.push_back(taps_of(mode, i, x.height));
    for (std::int64_t j = 0; j < y.width; ++j) across.push_back(taps_of(mode, j, x.width));
    program_.step({x.slot}, [=](const Program::Run& run) {
        run.for_each(run.samples * y.height, [&](std::int64_t row) {
            const Taps& v = down[static_cast<std::size_t>(row % y.height)];
            const float* from = run.at(x.slot) + row / y.height * x.elements();
            float* to = run.at(y.slot) + row * y.width * y.channels;
            for (const Taps& h : across) {
                const float* pixels[16];
                float weights[16];
                std::int64_t terms = 0;
                for (std::int64_t i = 0; i < v.count; ++i) {
                    for (std::int64_t j = 0; j < h.count; ++j, ++terms) {
                        pixels[terms] = from + (v.at[i] * x.width + h.at[j]) * x.channels;
                        weights[terms] = v.weight[i] * h.weight[j];
                    }
                }
                rows_table().weighted_sum(x.channels, terms, pixels, weights, to);
                to += y.channels;
            }
        });
    });
    return y;
}

ProgramValue ProgramOps::lower(const graph::Concat&, const In& in) {
    const Result a = read(in[0]), b = read(in[1]),
                 y = result(a.channels + b.channels, a.height, a.width, a.image);
    program_.step({a.slot, b.slot}, [=](const Program::Run& run) {
        const float *from_a = run.at(a.slot), *from_b = run.at(b.slot);
        float* to = run.at(y.slot);
        run.for_each(run.samples * y.positions(), [&](std::int64_t i) {
            std::copy_n(from_a + i * a.channels, a.channels, to + i * y.channels);
            std::copy_n(from_b + i * b.channels, b.channels, to + i * y.channels + a.channels);
        });
    });
    return y;
}

ProgramValue ProgramOps::lower(const graph::Add&, const In& in) {
    const Result a = read(in[0]), b = read(in[1]), y = like(a);
    const bool per_channel = a.image && !b.image;
    const std::int64_t rows = per_channel ? a.positions() : a.height, length = a.elements() / rows;
    program_.step({a.slot, b.slot}, [=](const Program::Run& run) {
        const float *from_a = run.at(a.slot), *from_b = run.at(b.slot);
        float* to = run.at(y.slot);
        run.for_each(run.samples * rows, [&](std::int64_t i) {
            rows_table().add(length, from_a + i * length,
                             from_b + (per_channel ? i / rows : i) * length, 1, to + i * length);
        });
    });
    return y;
}

template <class Of>
ProgramOps::Result ProgramOps::elementwise(const ProgramValue& value, Of of) {
    const Result x = read(value), y = like(x);
    program_.step({x.slot}, [=](const Program::Run& run) {
        const auto own = run.slice(run.samples * x.elements());
        const float* from = run.at(x.slot);
        float* to = run.at(y.slot);
        for (std::int64_t i = own.begin; i < own.end; ++i) to[i] = of(from[i]);
    });
    return y;
}

ProgramValue ProgramOps::lower(const graph::Relu&, const In& in) {
    return elementwise(in[0], [](float x) { return std::max(x, 0.0F); });
}

ProgramValue ProgramOps::lower(const graph::Tanh&, const In& in) {
    return elementwise(in[0], [](float x) { return std::tanh(x); });
}

ProgramValue ProgramOps::lower(const graph::Scale& layer, const In& in) {
    if (layer.shift != 0) {
        return elementwise(in[0], [factor = static_cast<float>(layer.factor),
                                   shift = static_cast<float>(layer.shift)](float x) {
            return factor * x + shift;
        });
    }
    const Result x = read(in[0]), y = like(x);
    const auto half = static_cast<float>(layer.factor) / 2;
    program_.step({x.slot}, [=](const Program::Run& run) {
        const auto own = run.slice(run.samples * x.elements());
        const float* from = run.at(x.slot) + own.begin;
        rows_table().add(own.end - own.begin, from, from, half, run.at(y.slot) + own.begin);
    });
    return y;
}

ProgramValue ProgramOps::lower(const graph::Silu&, const In& in) {
    const Result x = read(in[0]), y = like(x);
    program_.step({x.slot}, [=](const Program::Run& run) {
        const auto own = run.slice(run.samples * x.elements());
        rows_table().silu(own.end - own.begin, run.at(x.slot) + own.begin,
                          run.at(y.slot) + own.begin);
    });
    return y;
}

ProgramOps::Result ProgramOps::sinusoids(const ProgramValue& value, const Tensor& frequencies,
                                         bool sines_first) {
    const Result x = read(value);
    const std::int64_t half = frequencies.numel();
    const Result y = result(x.channels * 2 * half, 1, 1, false);
    program_.step({x.slot}, [=](const Program::Run& run) {
        run.for_each(run.samples * x.channels, [&](std::int64_t i) {
            float *to = run.at(y.slot) + i * 2 * half, *sines = sines_first ? to : to + half,
                  *cosines = sines_first ? to + half : to;
            for (std::int64_t f = 0; f < half; ++f) {
                const float angle = run.at(x.slot)[i] * frequencies.const_data_ptr<float>()[f];
                sines[f] = std::sin(angle);
                cosines[f] = std::cos(angle);
            }
        });
    });
    return y;
}

ProgramValue ProgramOps::lower(const graph::Sinusoid& layer, const In& in) {
    return sinusoids(in[0], at::tensor(graph::frequencies_of(layer)), layer.sines_first);
}

ProgramValue ProgramOps::lower(const graph::Fourier& layer, const In& in) {
    return sinusoids(in[0], parameter(layer.name) * (2 * std::numbers::pi), true);
}

ProgramValue ProgramOps::lower(const graph::PixelUnshuffle& layer, const In& in) {
    const std::int64_t factor = layer.factor;
    const Result x = read(in[0]),
                 y = result(x.channels * factor * factor, x.height / factor, x.width / factor);
    program_.step({x.slot}, [=](const Program::Run& run) {
        run.for_each(run.samples * x.height, [&](std::int64_t row) {
            const float* from = run.at(x.slot) + row * x.width * x.channels;
            float* to =
                run.at(y.slot) + row / factor * y.width * y.channels + row % factor * factor;
            for (std::int64_t j = 0; j < x.width; ++j) {
                for (std::int64_t c = 0; c < x.channels; ++c) {
                    to[j / factor * y.channels + c * factor * factor + j % factor] =
                        from[j * x.channels + c];
                }
            }
        });
    });
    return y;
}

ProgramValue ProgramOps::lower(const graph::PixelShuffle& layer, const In& in) {
    const std::int64_t factor = layer.factor;
    const Result x = read(in[0]),
                 y = result(x.channels / (factor * factor), x.height * factor, x.width * factor);
    // Distances between a pixel's channels, and between the pixels of a row of a block.
    const std::int64_t step = layer.blocks_first ? 1 : factor * factor,
                       across = layer.blocks_first ? y.channels : 1;
    program_.step({x.slot}, [=](const Program::Run& run) {
        run.for_each(run.samples * y.height, [&](std::int64_t row) {
            const float* from = run.at(x.slot) + row / factor * x.width * x.channels +
                                row % factor * factor * across;
            float* to = run.at(y.slot) + row * y.width * y.channels;
            for (std::int64_t j = 0; j < y.width; ++j) {
                for (std::int64_t c = 0; c < y.channels; ++c)
                    to[j * y.channels + c] =
                        from[j / factor * x.channels + c * step + j % factor * across];
            }
        });
    });
    return y;
}

ProgramValue ProgramOps::lower(const graph::GlobalAverage&, const In& in) {
    const Result x = read(in[0]), y = result(x.channels, 1, 1, false);
    program_.step({x.slot}, [=](const Program::Run& run) {
        run.for_each(run.samples, [&](std::int64_t i) {
            float* to = run.at(y.slot) + i * y.channels;
            std::fill_n(to, y.channels, 0.0F);
            for (std::int64_t p = 0; p < x.positions(); ++p) {
                const float* pixel = run.at(x.slot) + (i * x.positions() + p) * x.channels;
                for (std::int64_t c = 0; c < x.channels; ++c)
                    to[c] += pixel[c] / static_cast<float>(x.positions());
            }
        });
    });
    return y;
}

std::string unsupported_by_programs(const graph::Graph& graph) {
    for (const graph::Value input : graph.inputs) {
        const std::size_t axes = graph.shape(input).size();
        if (axes == 3 || axes > 4) return "tokens";
    }
    const char* op = graph::first_unsupported<ProgramOps>(graph);
    return op == nullptr ? "" : op;
}

}  // namespace atelier::backends
