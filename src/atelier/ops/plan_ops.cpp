#include "atelier/ops/plan_ops.h"

#include <cmath>
#include <cstring>
#include <numbers>

#include "atelier/ops/norm_kernels.h"
#include "atelier/ops/row_kernels.h"
#include "atelier/ops/sinusoid.h"

namespace atelier::ops {

namespace {

const row_kernels::Table& rows_table() {
    static const row_kernels::Table& best = row_kernels::best();
    return best;
}

/// The affine map of a channel that follows a normalisation: a row [C] for all samples or rows to choose from, or scale and shift that the run computes.
struct Modulation {
    Tensor gain, offset;             // [R,C]
    std::optional<Plan::Slot> said;  // [2C] a sample

    /// Gain and offset of a sample, in `room` (2C numbers) where they are to be computed.
    std::pair<const float*, const float*> of(const Plan::Run& run, std::int64_t sample, float* room) const {
        const std::int64_t channels = gain.size(1);
        const float *gains = gain.const_data_ptr<float>(), *offsets = offset.const_data_ptr<float>();
        if (!said) {
            const std::int64_t row = gain.size(0) == 1 ? 0 : run.rows[sample];
            return {gains + row * channels, offsets + row * channels};
        }
        const float* scale = run.at(*said) + sample * 2 * channels;
        for (std::int64_t c = 0; c < channels; ++c) {
            room[c] = (1 + scale[c]) * gains[c];
            room[channels + c] = (1 + scale[c]) * offsets[c] + scale[channels + c];
        }
        return {room, room + channels};
    }
};

/// Parts of a sample whose moments are summed each by one thread; as many whatever the threads, so that results do not depend on them.
constexpr std::int64_t parts = 8;

struct Norm {
    norm_kernels::Sample sample;
    Modulation modulation;
    Plan::Slot x, y, moments;

    std::int64_t numbers() const { return sample.positions * sample.channels; }
};

/// a and b of gain*x^ + offset = a*x + b for the channels of sample `i`, from what x is above its first pixel: [2C].
const float* affine_of(const Norm& n, const Plan::Run& run, std::int64_t i) {
    const norm_kernels::Sample& s = n.sample;
    const std::int64_t channels = s.channels, each = channels / s.groups;
    float *a = run.scratch.room(static_cast<std::size_t>(6 * channels)), *b = a + channels, *sums = b + channels;
    const float *x = run.at(n.x) + i * n.numbers(), *moments = run.at(n.moments) + i * parts * 2 * channels;
    const auto [gain, offset] = n.modulation.of(run, i, sums + 2 * channels);
    std::copy_n(moments, 2 * channels, sums);
    for (std::int64_t part = 1; part < parts; ++part) rows_table().add(2 * channels, sums, moments + part * 2 * channels, 1, sums);
    const auto positions = static_cast<double>(s.positions), in_group = positions * static_cast<double>(each);
    for (std::int64_t first = 0; first < channels; first += each) {
        double mean = 0, square = 0;
        for (std::int64_t c = first; c < first + each; ++c) mean += positions * x[c] + sums[c];
        mean /= in_group;
        for (std::int64_t c = first; c < first + each; ++c) {
            const double start = x[c] - mean;
            square += sums[channels + c] + start * (2 * sums[c] + positions * start);
        }
        const auto inverse = static_cast<float>(1 / std::sqrt(std::max(0.0, square / in_group) + static_cast<double>(s.eps)));
        for (std::int64_t c = first; c < first + each; ++c) {
            a[c] = gain[c] * inverse;
            b[c] = offset[c] - a[c] * static_cast<float>(mean);
        }
    }
    return a;
}

/// Every thread sums and writes the pixels that are its own in the steps around, so that they stay in its cache; what the threads tell each other are the moments.
void normalise(const Norm& n, const Plan::Run& run) {
    static const norm_kernels::Loops<float>& loops = norm_kernels::best().float32;
    const norm_kernels::Sample& s = n.sample;
    const float* x = run.at(n.x);
    run.each(run.samples * parts, [&](std::int64_t i) {
        const float* sample = x + i / parts * n.numbers();
        const std::int64_t begin = i % parts * s.positions / parts, end = (i % parts + 1) * s.positions / parts;
        rows_table().moments(end - begin, s.channels, sample + begin * s.channels, sample, run.at(n.moments) + i * 2 * s.channels);
    });
    run.wait();
    const auto mine = run.share(run.samples * s.positions);
    for (std::int64_t first = mine.begin; first < mine.end;) {
        const std::int64_t i = first / s.positions, end = std::min(mine.end, (i + 1) * s.positions);
        const float* a = affine_of(n, run, i);
        loops.affine(end - first, s.channels, x + first * s.channels, a, a + s.channels, s.silu, run.at(n.y) + first * s.channels);
        first = end;
    }
}

/// The pixels that one of a resampled image is made of, along one axis.
struct Taps {
    std::int64_t count = 0, at[4] = {};
    float weight[4] = {};

    void add(std::int64_t place, std::int64_t size, float w) {
        if (place < 0 || place >= size) return;
        at[count] = place;
        weight[count++] = w;
    }
};

Taps taps_of(Resample how, std::int64_t out, std::int64_t size) {
    constexpr float smooth[4] = {1, 3, 3, 1};
    Taps taps;
    if (how == Resample::up) taps.add(out / 2, size, 1);
    for (std::int64_t i = 0; how == Resample::down && i < 2; ++i) taps.add(2 * out + i, size, 0.5F);
    for (std::int64_t i = 0; i < 4; ++i) {
        if (how == Resample::smooth_down) taps.add(2 * out - 1 + i, size, smooth[i] / 8);
        if (how == Resample::smooth_down_valid) taps.add(2 * out + i, size, smooth[i] / 8);
        if (how == Resample::smooth_up && (out + 1 - i) % 2 == 0) taps.add((out + 1 - i) / 2, size, smooth[i] / 4);
    }
    return taps;
}

std::int64_t resampled(Resample how, std::int64_t size) {
    if (how == Resample::up || how == Resample::smooth_up) return 2 * size;
    return how == Resample::smooth_down_valid ? size / 2 - 1 : size / 2;
}

/// to[j*rows+i] = from[i*columns+j]
void transposed(std::int64_t rows, std::int64_t columns, const float* from, float* to) {
    for (std::int64_t j = 0; j < columns; ++j) {
        for (std::int64_t i = 0; i < rows; ++i) to[j * rows + i] = from[i * columns + j];
    }
}

}  // namespace

PlanOps::Result PlanOps::result(std::int64_t channels, std::int64_t height, std::int64_t width, bool image) {
    return {plan_.place(channels * height * width), channels, height, width, image};
}

Tensor PlanOps::numbers(const std::string& name) const {
    const Tensor& tensor = parameters_.at(name);
    if (!tensor.is_floating_point() || !tensor.device().is_cpu()) throw Unspoken();
    const Tensor floats = tensor.to(at::kFloat).contiguous();
    return floats.dim() == 1 ? floats.clone() : floats;  // the larger ones are put in panels
}

Value PlanOps::input(std::size_t number, const Shape& sample) {
    if (sample.size() != 3 && sample.size() > 1) throw Unspoken();
    const bool image = sample.size() == 3;
    const Result to = image ? result(sample[0], sample[1], sample[2]) : result(sample.empty() ? 1 : sample[0], 1, 1, false);
    plan_.step({}, [=](const Plan::Run& run) {
        const auto transpose = [&](std::int64_t i) {
            transposed(to.channels, to.positions(), run.inputs[number] + i * to.numbers(), run.at(to.slot) + i * to.numbers());
        };
        run.each(run.samples, transpose);
    });
    return to;
}

Plan PlanOps::finished(const Value& value) {
    const Result from = read(value);
    plan_.step({from.slot}, [=](const Plan::Run& run) {
        run.each(run.samples, [&](std::int64_t i) {
            transposed(from.positions(), from.channels, run.at(from.slot) + i * from.numbers(), run.output + i * from.numbers());
        });
    });
    plan_.finish();
    return std::move(plan_);
}

PlanOps::Result PlanOps::read(const Value& x) {
    if (!is_table(x)) return std::any_cast<const Result&>(x);
    const Tensor table = tensor_of(x).to(at::kFloat).contiguous();
    if (table.dim() != 2) throw Unspoken();
    const std::int64_t width = table.size(1);
    const Result to = result(width, 1, 1, false);
    plan_.step({}, [=](const Plan::Run& run) {
        run.each(run.samples, [&](std::int64_t i) {
            std::copy_n(table.const_data_ptr<float>() + (table.size(0) == 1 ? 0 : run.rows[i]) * width, width, run.at(to.slot) + i * width);
        });
    });
    return to;
}

Shape PlanOps::shape(const Value& x) const {
    if (is_table(x)) return known_.shape(x);
    const auto& one = std::any_cast<const Result&>(x);
    if (!one.image) return {1, one.channels};
    return {1, one.channels, one.height, one.width};
}

Value PlanOps::group_norm(const Value& value, const std::string& name, const GroupNorm& layer) {
    const Result x = read(value);
    Modulation with{numbers(name + ".weight").view({1, -1}), numbers(name + ".bias").view({1, -1}), std::nullopt};
    std::vector<Plan::Slot> reads{x.slot};
    if (layer.modulation && is_table(*layer.modulation)) {
        const auto halves = tensor_of(*layer.modulation).to(at::kFloat).chunk(2, 1);
        const Tensor factor = halves[0] + 1;
        with.offset = at::addcmul(halves[1], factor, with.offset).contiguous();
        with.gain = (factor * with.gain).contiguous();
    } else if (layer.modulation) {
        with.said = read(*layer.modulation).slot;
        reads.push_back(*with.said);
    }
    const norm_kernels::Sample sample{x.positions(), x.channels, layer.groups, static_cast<float>(layer.eps), layer.silu};
    const Result y = like(x);
    const Norm norm{sample, with, x.slot, y.slot, plan_.place(parts * 2 * x.channels)};
    plan_.step(std::move(reads), [norm](const Plan::Run& run) { normalise(norm, run); });
    return y;
}

Value PlanOps::resample(const Value& value, Resample how) {
    if (how == Resample::none) return value;
    const Result x = read(value), y = result(x.channels, resampled(how, x.height), resampled(how, x.width));
    std::vector<Taps> down, across;
    for (std::int64_t i = 0; i < y.height; ++i) down.push_back(taps_of(how, i, x.height));
    for (std::int64_t j = 0; j < y.width; ++j) across.push_back(taps_of(how, j, x.width));
    plan_.step({x.slot}, [=](const Plan::Run& run) {
        run.each(run.samples * y.height, [&](std::int64_t row) {
            const Taps& v = down[static_cast<std::size_t>(row % y.height)];
            const float* from = run.at(x.slot) + row / y.height * x.numbers();
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
                rows_table().weigh(x.channels, terms, pixels, weights, to);
                to += y.channels;
            }
        });
    });
    return y;
}

Value PlanOps::concat(const Value& first, const Value& second) {
    if (is_table(first) && is_table(second)) return known_.concat(first, second);
    const Result a = read(first), b = read(second), y = result(a.channels + b.channels, a.height, a.width, a.image);
    plan_.step({a.slot, b.slot}, [=](const Plan::Run& run) {
        const float *from_a = run.at(a.slot), *from_b = run.at(b.slot);
        float* to = run.at(y.slot);
        run.each(run.samples * y.positions(), [&](std::int64_t i) {
            std::copy_n(from_a + i * a.channels, a.channels, to + i * y.channels);
            std::copy_n(from_b + i * b.channels, b.channels, to + i * y.channels + a.channels);
        });
    });
    return y;
}

Value PlanOps::add(const Value& first, const Value& second) {
    if (is_table(first) && is_table(second)) return known_.add(first, second);
    const Result a = read(first), b = read(second), y = like(a);
    const bool for_every_pixel = a.image && !b.image;
    const std::int64_t rows = for_every_pixel ? a.positions() : a.height, length = a.numbers() / rows;
    plan_.step({a.slot, b.slot}, [=](const Plan::Run& run) {
        const float *from_a = run.at(a.slot), *from_b = run.at(b.slot);
        float* to = run.at(y.slot);
        run.each(run.samples * rows, [&](std::int64_t i) {
            rows_table().add(length, from_a + i * length, from_b + (for_every_pixel ? i / rows : i) * length, 1, to + i * length);
        });
    });
    return y;
}

Value PlanOps::scale(const Value& value, double factor) {
    if (is_table(value)) return known_.scale(value, factor);
    const Result x = read(value), y = like(x);
    const auto half = static_cast<float>(factor) / 2;
    plan_.step({x.slot}, [=](const Plan::Run& run) {
        const auto mine = run.share(run.samples * x.numbers());
        const float* from = run.at(x.slot) + mine.begin;
        rows_table().add(mine.end - mine.begin, from, from, half, run.at(y.slot) + mine.begin);
    });
    return y;
}

Value PlanOps::silu(const Value& value) {
    if (is_table(value)) return known_.silu(value);
    const Result x = read(value), y = like(x);
    plan_.step({x.slot}, [=](const Plan::Run& run) {
        const auto mine = run.share(run.samples * x.numbers());
        rows_table().silu(mine.end - mine.begin, run.at(x.slot) + mine.begin, run.at(y.slot) + mine.begin);
    });
    return y;
}

PlanOps::Result PlanOps::waves(const Value& value, const Tensor& frequencies, bool sines_first) {
    const Result x = read(value);
    const std::int64_t half = frequencies.numel();
    const Result y = result(2 * half, 1, 1, false);
    plan_.step({x.slot}, [=](const Plan::Run& run) {
        run.each(run.samples, [&](std::int64_t i) {
            float *to = run.at(y.slot) + i * 2 * half, *sines = sines_first ? to : to + half, *cosines = sines_first ? to + half : to;
            for (std::int64_t f = 0; f < half; ++f) {
                const float angle = run.at(x.slot)[i] * frequencies.const_data_ptr<float>()[f];
                sines[f] = std::sin(angle);
                cosines[f] = std::cos(angle);
            }
        });
    });
    return y;
}

Value PlanOps::sinusoid(const Value& x, const Sinusoid& layer) {
    if (is_table(x)) return known_.sinusoid(x, layer);
    return waves(x, at::tensor(frequencies_of(layer)), layer.sines_first);
}

Value PlanOps::fourier(const Value& x, const std::string& name, std::int64_t width) {
    if (is_table(x)) return known_.fourier(x, name, width);
    return waves(x, numbers(name) * (2 * std::numbers::pi), true);
}

Value PlanOps::pixel_unshuffle(const Value& value, std::int64_t factor) {
    const Result x = read(value), y = result(x.channels * factor * factor, x.height / factor, x.width / factor);
    plan_.step({x.slot}, [=](const Plan::Run& run) {
        run.each(run.samples * x.height, [&](std::int64_t row) {
            const float* from = run.at(x.slot) + row * x.width * x.channels;
            float* to = run.at(y.slot) + row / factor * y.width * y.channels + row % factor * factor;
            for (std::int64_t j = 0; j < x.width; ++j) {
                for (std::int64_t c = 0; c < x.channels; ++c) {
                    to[j / factor * y.channels + c * factor * factor + j % factor] = from[j * x.channels + c];
                }
            }
        });
    });
    return y;
}

Value PlanOps::pixel_shuffle(const Value& value, std::int64_t factor) {
    const Result x = read(value), y = result(x.channels / (factor * factor), x.height * factor, x.width * factor);
    plan_.step({x.slot}, [=](const Plan::Run& run) {
        run.each(run.samples * y.height, [&](std::int64_t row) {
            const float* from = run.at(x.slot) + row / factor * x.width * x.channels + row % factor * factor;
            float* to = run.at(y.slot) + row * y.width * y.channels;
            for (std::int64_t j = 0; j < y.width; ++j) {
                for (std::int64_t c = 0; c < y.channels; ++c) {
                    to[j * y.channels + c] = from[j / factor * x.channels + c * factor * factor + j % factor];
                }
            }
        });
    });
    return y;
}

Value PlanOps::global_average(const Value& value) {
    const Result x = read(value), y = result(x.channels, 1, 1, false);
    plan_.step({x.slot}, [=](const Plan::Run& run) {
        run.each(run.samples, [&](std::int64_t i) {
            float* to = run.at(y.slot) + i * y.channels;
            std::fill_n(to, y.channels, 0.0F);
            for (std::int64_t p = 0; p < x.positions(); ++p) {
                const float* pixel = run.at(x.slot) + (i * x.positions() + p) * x.channels;
                for (std::int64_t c = 0; c < x.channels; ++c) to[c] += pixel[c] / static_cast<float>(x.positions());
            }
        });
    });
    return y;
}

}  // namespace atelier::ops
