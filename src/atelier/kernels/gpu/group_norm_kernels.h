#pragma once

#include "atelier/kernels/gpu/kernel_code.h"

/// Group normalisation, then y = norm*(1+scale)+shift per sample and channel, then SiLU, forward
/// and backward, of samples whose channels are innermost (NHWC). Sums are float32, and their order
/// follows from a sample's shape alone, so a sample does not depend on its batch.
///
/// Samples are cut into chunks of positions, one block each (a few where there are many channels):
/// forward is GroupNormSums, GroupNormStatistics, GroupNormApply; backward is
/// GroupNormBackwardSums, GroupNormBackwardTerms, GroupNormBackwardApply and, for the gradients of
/// weight and bias, GroupNormParameterGradients.
namespace atelier::kernels::gpu {

enum class ModulationType { none, float32, bfloat16 };

struct GroupNormArguments {
    int samples, positions, channels, groups;
    int chunks, chunk_positions;  // of a sample; the last chunk may be smaller
    int silu;
    float eps;
    ModulationType modulation_type;
    const void* x;           // [samples,positions,channels]
    const void* dy;          // the same
    void* y;                 // the same: y forward, dx backward
    const float* weight;     // [channels]
    const float* bias;       // [channels]
    const void* modulation;  // [samples,2*channels]: scale, shift
    float* mean;             // [samples,groups]
    float* rstd;             // [samples,groups]
    float* partial;          // [samples,chunks,channels,2]
    float* totals;           // [samples,channels,2]: sums of du and of du*norm
    float* terms;            // [samples,groups,2]: what dx subtracts
    void* dmodulation;       // as modulation
    float* dweight;          // [channels]
    float* dbias;            // [channels]
};

/// Weight and bias of one channel of one sample, with scale and shift.
struct Affine {
    float weight, bias;
};

ATELIER_DEVICE float modulation_at(const GroupNormArguments& a, long long index) {
    return a.modulation_type == ModulationType::bfloat16
               ? as_float(static_cast<const Bfloat16*>(a.modulation)[index])
               : static_cast<const float*>(a.modulation)[index];
}

ATELIER_DEVICE float scale_of(const GroupNormArguments& a, int sample, int channel) {
    if (a.modulation_type == ModulationType::none) return 1.0F;
    return 1.0F + modulation_at(a, 2LL * sample * a.channels + channel);
}

ATELIER_DEVICE Affine affine_of(const GroupNormArguments& a, int sample, int channel) {
    const float scale = scale_of(a, sample, channel);
    const float shift = a.modulation_type == ModulationType::none
                            ? 0.0F
                            : modulation_at(a, (2LL * sample + 1) * a.channels + channel);
    return {a.weight[channel] * scale, a.bias[channel] * scale + shift};
}

/// The threads of a block that walks through a chunk: each has `width` neighbouring channels and
/// every rows-th position. Blocks along z have further channels.
template <int width, int threads>
struct Walk {
    int lanes, rows, lane, row;  // lanes: of this block
    int channel;                 // the thread's first
    int first, last;             // the thread's first position, and the end of the chunk
    long long sample;            // where the sample begins
    bool active;                 // some threads of the last row may have nothing to do

    ATELIER_DEVICE Walk(const GroupNormArguments& a, const Place& place) {
        const int all = a.channels / width, before = place.z * threads;
        lanes = all - before < threads ? all - before : threads;
        rows = threads / lanes;
        lane = place.thread % lanes;
        row = place.thread / lanes;
        channel = (before + lane) * width;
        active = row < rows;
        first = place.x * a.chunk_positions + row;
        const int end = (place.x + 1) * a.chunk_positions;
        last = end < a.positions ? end : a.positions;
        sample = static_cast<long long>(place.y) * a.positions * a.channels;
    }

    ATELIER_DEVICE long long at(const GroupNormArguments& a, int position) const {
        return sample + static_cast<long long>(position) * a.channels + channel;
    }
};

/// Two sums for each channel of each thread.
template <int width, int threads>
struct ThreadSums {
    float values[2][width][threads];
};

template <int width, int threads>
ATELIER_DEVICE void keep_sums(const float (&first)[width], const float (&second)[width], int thread,
                              ThreadSums<width, threads>& shared) {
    for (int i = 0; i < width; ++i) {
        shared.values[0][i][thread] = first[i];
        shared.values[1][i][thread] = second[i];
    }
}

/// Sums the rows of a block and writes its part of `partial`.
template <int width, int threads>
ATELIER_DEVICE void write_partial(const GroupNormArguments& a, const Place& place,
                                  const ThreadSums<width, threads>& shared) {
    const Walk<width, threads> walk(a, place);
    const long long block = (static_cast<long long>(place.y) * a.chunks + place.x) * a.channels;
    for (int k = place.thread; k < walk.lanes * width; k += threads) {
        const int lane = k % walk.lanes, i = k / walk.lanes;
        float first = 0, second = 0;
        for (int row = 0; row < walk.rows; ++row) {
            first += shared.values[0][i][row * walk.lanes + lane];
            second += shared.values[1][i][row * walk.lanes + lane];
        }
        const int channel = (place.z * threads + lane) * width + i;
        a.partial[2 * (block + channel)] = first;
        a.partial[2 * (block + channel) + 1] = second;
    }
}

/// Per channel of a chunk: sums of x-p and (x-p)^2, where p is the group's first element in the
/// sample, so that a large mean costs no precision.
template <class T, int width>
struct GroupNormSums {
    static constexpr int threads = 256, phases = 2;
    using Arguments = GroupNormArguments;
    using Shared = ThreadSums<width, threads>;

    template <int phase>
    ATELIER_DEVICE static void run(const Arguments& a, const Place& place, Shared& shared) {
        if constexpr (phase == 0) sum(a, place, shared);
        else write_partial<width, threads>(a, place, shared);
    }

    ATELIER_DEVICE static void sum(const Arguments& a, const Place& place, Shared& shared) {
        const Walk<width, threads> walk(a, place);
        if (!walk.active) return;
        const T* x = static_cast<const T*>(a.x);
        const int size = a.channels / a.groups;
        float pivot[width], sums[width], squares[width];
        for (int i = 0; i < width; ++i) {
            pivot[i] = as_float(x[walk.sample + (walk.channel + i) / size * size]);
            sums[i] = squares[i] = 0;
        }
        ATELIER_UNROLL(4)
        for (int p = walk.first; p < walk.last; p += walk.rows) {
            float values[width];
            load(x + walk.at(a, p), values);
            for (int i = 0; i < width; ++i) {
                const float d = values[i] - pivot[i];
                sums[i] += d;
                squares[i] += d * d;
            }
        }
        keep_sums<width, threads>(sums, squares, place.thread, shared);
    }
};

/// Two sums for each thread of a block that reduces groups, `parts` threads for each.
struct GroupSums {
    static constexpr int threads = 256, parts = 32;
    float values[2][threads];

    ATELIER_DEVICE void total(int first_thread, float& first, float& second) const {
        first = second = 0;
        for (int i = 0; i < parts; ++i) {
            first += values[0][first_thread + i];
            second += values[1][first_thread + i];
        }
    }
};

/// The group that a thread sums for; a.groups or more: none.
ATELIER_DEVICE int group_of(const GroupNormArguments& a, const Place& place) {
    return (place.x * GroupSums::threads + place.thread) / GroupSums::parts;
}

/// A kernel whose threads sum for groups, several for each: Kernel::sum is a thread's part, and
/// Kernel::write what one thread of a group makes of them.
template <class Kernel>
struct OverGroups {
    static constexpr int threads = GroupSums::threads, phases = 2;
    using Arguments = GroupNormArguments;
    using Shared = GroupSums;

    template <int phase>
    ATELIER_DEVICE static void run(const Arguments& a, const Place& place, Shared& shared) {
        const int group = group_of(a, place), part = place.thread % GroupSums::parts;
        if (group >= a.groups) return;
        if constexpr (phase == 0) Kernel::sum(a, place, group, part, shared);
        else if (part == 0) Kernel::write(a, place, group, shared);
    }
};

/// Mean and reciprocal standard deviation of each group.
template <class T>
struct GroupNormStatistics : OverGroups<GroupNormStatistics<T>> {
    using Arguments = GroupNormArguments;
    using Shared = GroupSums;

    ATELIER_DEVICE static void sum(const Arguments& a, const Place& place, int group, int part,
                                   Shared& shared) {
        const int size = a.channels / a.groups;
        float sums = 0, squares = 0;
        for (int e = part; e < a.chunks * size; e += GroupSums::parts) {
            const long long chunk = static_cast<long long>(place.y) * a.chunks + e / size;
            const float* from = a.partial + 2 * (chunk * a.channels +
                                                 static_cast<long long>(group) * size + e % size);
            sums += from[0];
            squares += from[1];
        }
        shared.values[0][place.thread] = sums;
        shared.values[1][place.thread] = squares;
    }

    ATELIER_DEVICE static void write(const Arguments& a, const Place& place, int group,
                                     const Shared& shared) {
        const int size = a.channels / a.groups;
        float sums = 0, squares = 0;
        shared.total(place.thread, sums, squares);
        const float elements = static_cast<float>(size) * static_cast<float>(a.positions);
        const long long sample = static_cast<long long>(place.y) * a.positions * a.channels;
        const float pivot =
            as_float(static_cast<const T*>(a.x)[sample + static_cast<long long>(group) * size]);
        const float offset = sums / elements;
        const float variance = squares / elements - offset * offset;
        const long long to = static_cast<long long>(place.y) * a.groups + group;
        a.mean[to] = pivot + offset;
        // Rounding may leave a tiny negative variance; NaN stays NaN.
        a.rstd[to] = 1.0F / core::square_root((variance < 0 ? 0.0F : variance) + a.eps);
    }
};

/// y = [silu]((x - mean) * rstd * weight + bias).
template <class T, int width>
struct GroupNormApply {
    static constexpr int threads = 256, phases = 1;
    using Arguments = GroupNormArguments;
    using Shared = NoShared;

    template <int phase>
    ATELIER_DEVICE static void run(const Arguments& a, const Place& place, Shared&) {
        const Walk<width, threads> walk(a, place);
        if (!walk.active) return;
        const int size = a.channels / a.groups;
        float mean[width], factor[width], bias[width];
        for (int i = 0; i < width; ++i) {
            const int channel = walk.channel + i;
            const long long group = static_cast<long long>(place.y) * a.groups + channel / size;
            const Affine affine = affine_of(a, place.y, channel);
            mean[i] = a.mean[group];
            factor[i] = a.rstd[group] * affine.weight;
            bias[i] = affine.bias;
        }
        const T* x = static_cast<const T*>(a.x);
        T* y = static_cast<T*>(a.y);
        ATELIER_UNROLL(4)
        for (int p = walk.first; p < walk.last; p += walk.rows) {
            float values[width];
            load(x + walk.at(a, p), values);
            for (int i = 0; i < width; ++i) {
                const float u = (values[i] - mean[i]) * factor[i] + bias[i];
                values[i] = a.silu != 0 ? u * sigmoid(u) : u;
            }
            store(values, y + walk.at(a, p));
        }
    }
};

/// What the backward pass knows of a thread's channels.
template <int width>
struct Recalled {
    float mean[width], rstd[width], weight[width], bias[width];

    ATELIER_DEVICE Recalled(const GroupNormArguments& a, int sample, int channel) {
        const int size = a.channels / a.groups;
        for (int i = 0; i < width; ++i) {
            const long long group =
                static_cast<long long>(sample) * a.groups + (channel + i) / size;
            const Affine affine = affine_of(a, sample, channel + i);
            mean[i] = a.mean[group];
            rstd[i] = a.rstd[group];
            weight[i] = affine.weight;
            bias[i] = affine.bias;
        }
    }

    ATELIER_DEVICE float norm(int i, float x) const { return (x - mean[i]) * rstd[i]; }

    /// From dy to du, the gradient of what SiLU reads.
    ATELIER_DEVICE float du(int i, float norm, float dy, int silu) const {
        if (silu == 0) return dy;
        const float u = norm * weight[i] + bias[i], s = sigmoid(u);
        return dy * s * (1.0F + u * (1.0F - s));
    }
};

/// Per channel of a chunk: sums of du and of du*norm.
template <class T, int width>
struct GroupNormBackwardSums {
    static constexpr int threads = 256, phases = 2;
    using Arguments = GroupNormArguments;
    using Shared = ThreadSums<width, threads>;

    template <int phase>
    ATELIER_DEVICE static void run(const Arguments& a, const Place& place, Shared& shared) {
        if constexpr (phase == 0) sum(a, place, shared);
        else write_partial<width, threads>(a, place, shared);
    }

    ATELIER_DEVICE static void sum(const Arguments& a, const Place& place, Shared& shared) {
        const Walk<width, threads> walk(a, place);
        if (!walk.active) return;
        const Recalled<width> recalled(a, place.y, walk.channel);
        const T* x = static_cast<const T*>(a.x);
        const T* dy = static_cast<const T*>(a.dy);
        float sums[width], products[width];
        for (int i = 0; i < width; ++i) sums[i] = products[i] = 0;
        ATELIER_UNROLL(2)
        for (int p = walk.first; p < walk.last; p += walk.rows) {
            float values[width], gradients[width];
            load(x + walk.at(a, p), values);
            load(dy + walk.at(a, p), gradients);
            for (int i = 0; i < width; ++i) {
                const float norm = recalled.norm(i, values[i]);
                const float du = recalled.du(i, norm, gradients[i], a.silu);
                sums[i] += du;
                products[i] += du * norm;
            }
        }
        keep_sums<width, threads>(sums, products, place.thread, shared);
    }
};

/// Totals per channel, the gradient of the modulation, and the terms that dx subtracts: the means
/// over a group of weight*du and of weight*du*norm.
struct GroupNormBackwardTerms : OverGroups<GroupNormBackwardTerms> {
    ATELIER_DEVICE static void sum(const Arguments& a, const Place& place, int group, int part,
                                   Shared& shared) {
        const int size = a.channels / a.groups;
        float sums = 0, products = 0;
        for (int channel = group * size + part; channel < (group + 1) * size;
             channel += GroupSums::parts) {
            float of_bias = 0, of_weight = 0;
            for (int chunk = 0; chunk < a.chunks; ++chunk) {
                const long long block = static_cast<long long>(place.y) * a.chunks + chunk;
                const float* from = a.partial + 2 * (block * a.channels + channel);
                of_bias += from[0];
                of_weight += from[1];
            }
            float* totals = a.totals + 2 * (static_cast<long long>(place.y) * a.channels + channel);
            totals[0] = of_bias;
            totals[1] = of_weight;
            write_modulation(a, place.y, channel, of_weight, of_bias);
            const float weight = affine_of(a, place.y, channel).weight;
            sums += weight * of_bias;
            products += weight * of_weight;
        }
        shared.values[0][place.thread] = sums;
        shared.values[1][place.thread] = products;
    }

    ATELIER_DEVICE static void write_modulation(const Arguments& a, int sample, int channel,
                                                float of_weight, float of_bias) {
        if (a.modulation_type == ModulationType::none) return;
        const float scale = of_weight * a.weight[channel] + of_bias * a.bias[channel];
        const long long at = 2LL * sample * a.channels + channel;
        if (a.modulation_type == ModulationType::bfloat16) {
            Bfloat16* to = static_cast<Bfloat16*>(a.dmodulation);
            to[at] = rounded<Bfloat16>(scale);
            to[at + a.channels] = rounded<Bfloat16>(of_bias);
        } else {
            float* to = static_cast<float*>(a.dmodulation);
            to[at] = scale;
            to[at + a.channels] = of_bias;
        }
    }

    ATELIER_DEVICE static void write(const Arguments& a, const Place& place, int group,
                                     const Shared& shared) {
        float sums = 0, products = 0;
        shared.total(place.thread, sums, products);
        const float elements =
            static_cast<float>(a.channels / a.groups) * static_cast<float>(a.positions);
        float* to = a.terms + 2 * (static_cast<long long>(place.y) * a.groups + group);
        to[0] = sums / elements;
        to[1] = products / elements;
    }
};

/// dx = rstd * (weight*du - mean of weight*du - norm * mean of weight*du*norm).
template <class T, int width>
struct GroupNormBackwardApply {
    static constexpr int threads = 256, phases = 1;
    using Arguments = GroupNormArguments;
    using Shared = NoShared;

    template <int phase>
    ATELIER_DEVICE static void run(const Arguments& a, const Place& place, Shared&) {
        const Walk<width, threads> walk(a, place);
        if (!walk.active) return;
        const Recalled<width> recalled(a, place.y, walk.channel);
        const int size = a.channels / a.groups;
        float mean_of_du[width], mean_of_product[width];
        for (int i = 0; i < width; ++i) {
            const long long group =
                static_cast<long long>(place.y) * a.groups + (walk.channel + i) / size;
            mean_of_du[i] = a.terms[2 * group];
            mean_of_product[i] = a.terms[2 * group + 1];
        }
        const T* x = static_cast<const T*>(a.x);
        const T* dy = static_cast<const T*>(a.dy);
        T* dx = static_cast<T*>(a.y);
        ATELIER_UNROLL(2)
        for (int p = walk.first; p < walk.last; p += walk.rows) {
            float values[width], gradients[width];
            load(x + walk.at(a, p), values);
            load(dy + walk.at(a, p), gradients);
            for (int i = 0; i < width; ++i) {
                const float norm = recalled.norm(i, values[i]);
                const float du = recalled.du(i, norm, gradients[i], a.silu);
                values[i] = recalled.rstd[i] *
                            (recalled.weight[i] * du - mean_of_du[i] - norm * mean_of_product[i]);
            }
            store(values, dx + walk.at(a, p));
        }
    }
};

/// The gradients of weight and bias: sums over samples, `rows` of them side by side.
struct GroupNormParameterGradients {
    static constexpr int columns = 32, rows = 16, threads = columns * rows, phases = 2;
    using Arguments = GroupNormArguments;
    struct Shared {
        float values[2][rows][columns];
    };

    template <int phase>
    ATELIER_DEVICE static void run(const Arguments& a, const Place& place, Shared& shared) {
        const int column = place.thread % columns, row = place.thread / columns;
        const int channel = place.x * columns + column;
        if (channel >= a.channels) return;
        if constexpr (phase == 0) {
            float weight = 0, bias = 0;
            for (int sample = row; sample < a.samples; sample += rows) {
                const float* totals =
                    a.totals + 2 * (static_cast<long long>(sample) * a.channels + channel);
                const float scale = scale_of(a, sample, channel);
                bias += scale * totals[0];
                weight += scale * totals[1];
            }
            shared.values[0][row][column] = weight;
            shared.values[1][row][column] = bias;
        } else if (row == 0) {
            float weight = 0, bias = 0;
            for (int i = 0; i < rows; ++i) {
                weight += shared.values[0][i][column];
                bias += shared.values[1][i][column];
            }
            a.dweight[channel] = weight;
            a.dbias[channel] = bias;
        }
    }
};

/// Those for elements of type T, `width` read together, as `type`_`width`.
#define ATELIER_GROUP_NORM_WALKS(KERNEL, type, T, width)                                       \
    KERNEL(group_norm_sums_##type##_##width, atelier::kernels::gpu::GroupNormSums<T, width>)   \
    KERNEL(group_norm_apply_##type##_##width, atelier::kernels::gpu::GroupNormApply<T, width>) \
    KERNEL(group_norm_backward_sums_##type##_##width,                                          \
           atelier::kernels::gpu::GroupNormBackwardSums<T, width>)                             \
    KERNEL(group_norm_backward_apply_##type##_##width,                                         \
           atelier::kernels::gpu::GroupNormBackwardApply<T, width>)

#define ATELIER_GROUP_NORM_KERNELS(KERNEL)                                                   \
    ATELIER_GROUP_NORM_WALKS(KERNEL, float32, float, 1)                                      \
    ATELIER_GROUP_NORM_WALKS(KERNEL, float32, float, 4)                                      \
    ATELIER_GROUP_NORM_WALKS(KERNEL, bfloat16, atelier::kernels::gpu::Bfloat16, 1)           \
    ATELIER_GROUP_NORM_WALKS(KERNEL, bfloat16, atelier::kernels::gpu::Bfloat16, 8)           \
    KERNEL(group_norm_statistics_float32, atelier::kernels::gpu::GroupNormStatistics<float>) \
    KERNEL(group_norm_statistics_bfloat16,                                                   \
           atelier::kernels::gpu::GroupNormStatistics<atelier::kernels::gpu::Bfloat16>)      \
    KERNEL(group_norm_backward_terms, atelier::kernels::gpu::GroupNormBackwardTerms)         \
    KERNEL(group_norm_parameter_gradients, atelier::kernels::gpu::GroupNormParameterGradients)

#ifdef __CUDACC_RTC__
ATELIER_GROUP_NORM_KERNELS(ATELIER_KERNEL)
#endif

}  // namespace atelier::kernels::gpu
