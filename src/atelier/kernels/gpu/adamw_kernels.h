#pragma once

#include "atelier/kernels/gpu/kernel_code.h"

/// AdamW (Loshchilov & Hutter 2019) over many tensors in one pass over their memory, with what else
/// would read the new weights: averages and a bfloat16 copy.
namespace atelier::kernels::gpu {

/// One tensor's elements; those of all pointers lie in the same order. Null: not there.
struct AdamWTensor {
    static constexpr int max_averages = 3;
    float* parameter;
    const float* gradient;
    float* first_moment;
    float* second_moment;
    float* averages[max_averages];
    Bfloat16* copy;
    long long count;
};

/// At most 4096 bytes, which every GPU takes.
struct AdamWArguments {
    static constexpr int max_tensors = 48;
    AdamWTensor tensors[max_tensors];
    int first_block[max_tensors + 1];  // block first_block[i] is the first of tensor i
    int tensor_count;
    int average_only;  // parameters are read, averages written, and nothing else
    float beta1, beta2, weight_decay, eps;
    double average_decays[AdamWTensor::max_averages];
    const float* step;        // the number of this update, from 1
    const float* rate;        // the learning rate
    const float* grad_scale;  // what gradients are divided by; null: 1
    const float* found_inf;   // nothing is written where this is not 0; null: 0
};

/// What is the same for all elements.
struct AdamWShared {
    float decay;         // of the weights: 1 - rate * weight_decay
    float step_size;     // rate / (1 - beta1^step)
    float root_of_bias;  // sqrt(1 - beta2^step)
    float average_weights[AdamWTensor::max_averages];
    float scale;
    int skip;
};

static_assert(sizeof(AdamWArguments) <= 4096, "every GPU takes so many bytes of arguments");

/// Each block updates `per_block` elements of one tensor.
struct AdamWUpdate {
    static constexpr int threads = 256, phases = 2, per_block = 16 * threads;
    using Arguments = AdamWArguments;
    using Shared = AdamWShared;

    template <int phase>
    ATELIER_DEVICE static void run(const Arguments& a, const Place& place, Shared& shared) {
        if constexpr (phase == 0) {
            if (place.thread == 0) prepare(a, shared);
        } else if (shared.skip == 0) {
            update(a, place, shared);
        }
    }

    ATELIER_DEVICE static void prepare(const Arguments& a, Shared& shared) {
        shared.skip = a.found_inf != nullptr && *a.found_inf != 0 ? 1 : 0;
        shared.scale = a.grad_scale != nullptr ? *a.grad_scale : 1.0F;
        const double step = *a.step, rate = *a.rate;
        shared.decay = static_cast<float>(1 - rate * a.weight_decay);
        shared.step_size = static_cast<float>(rate / (1 - power(a.beta1, step)));
        shared.root_of_bias = static_cast<float>(core::square_root(1 - power(a.beta2, step)));
        for (int i = 0; i < AdamWTensor::max_averages; ++i) {
            // A lower decay at the beginning.
            const double early = (1 + step) / (10 + step), decay = a.average_decays[i];
            shared.average_weights[i] = static_cast<float>(1 - (decay < early ? decay : early));
        }
    }

    ATELIER_DEVICE static int tensor_of(const Arguments& a, int block) {
        int low = 0, high = a.tensor_count;
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (a.first_block[middle] <= block) low = middle;
            else high = middle;
        }
        return low;
    }

    ATELIER_DEVICE static void update(const Arguments& a, const Place& place,
                                      const Shared& shared) {
        const int index = tensor_of(a, place.x);
        const AdamWTensor& tensor = a.tensors[index];
        const long long begin = static_cast<long long>(place.x - a.first_block[index]) * per_block;
        const long long end = begin + per_block < tensor.count ? begin + per_block : tensor.count;
        for (long long i = begin + place.thread; i < end; i += threads) {
            const float value =
                a.average_only != 0 ? tensor.parameter[i] : updated(a, shared, tensor, i);
            for (int k = 0; k < AdamWTensor::max_averages; ++k) {
                if (tensor.averages[k] == nullptr) continue;
                tensor.averages[k][i] =
                    mixed(tensor.averages[k][i], value, shared.average_weights[k]);
            }
        }
    }

    ATELIER_DEVICE static float updated(const Arguments& a, const Shared& shared,
                                        const AdamWTensor& tensor, long long i) {
        const float gradient = tensor.gradient[i] / shared.scale;
        const float first = mixed(tensor.first_moment[i], gradient, 1 - a.beta1);
        const float second =
            a.beta2 * tensor.second_moment[i] + (1 - a.beta2) * gradient * gradient;
        const float root = core::square_root(second) / shared.root_of_bias + a.eps;
        const float value = tensor.parameter[i] * shared.decay - shared.step_size * first / root;
        tensor.first_moment[i] = first;
        tensor.second_moment[i] = second;
        tensor.parameter[i] = value;
        if (tensor.copy != nullptr) tensor.copy[i] = rounded<Bfloat16>(value);
        return value;
    }

    /// (1 - weight) * from + weight * to, exact for weight 0 and 1.
    ATELIER_DEVICE static float mixed(float from, float to, float weight) {
        return weight < 0.5F ? from + weight * (to - from) : to - (1 - weight) * (to - from);
    }
};

#define ATELIER_ADAMW_KERNELS(KERNEL) KERNEL(adamw_update, atelier::kernels::gpu::AdamWUpdate)

#ifdef __CUDACC_RTC__
ATELIER_ADAMW_KERNELS(ATELIER_KERNEL)
#endif

}  // namespace atelier::kernels::gpu
