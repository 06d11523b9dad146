#pragma once

#include "atelier/core/normal_numbers.h"
#include "atelier/kernels/gpu/kernel_code.h"

/// Standard normal numbers of a core::RandomStream, to the bit.
namespace atelier::kernels::gpu {

struct NormalArguments {
    float* out;                // [count]
    unsigned long long first;  // the stream's number that becomes out[0]
    unsigned long long count;
    unsigned long long index;  // of the stream
    unsigned int key0, key1;
};

/// Each thread makes the four numbers of one block of Philox.
struct NormalNumbers {
    static constexpr int threads = 256, phases = 1, per_block = 4 * threads;
    using Arguments = NormalArguments;
    using Shared = NoShared;

    template <int phase>
    ATELIER_DEVICE static void run(const Arguments& a, const Place& place, Shared&) {
        const unsigned long long block = a.first / 4 +
                                         static_cast<unsigned long long>(place.x) * threads +
                                         static_cast<unsigned long long>(place.thread);
        if (4 * block >= a.first + a.count) return;
        unsigned int words[4]{
            static_cast<unsigned int>(block), static_cast<unsigned int>(block >> 32),
            static_cast<unsigned int>(a.index), static_cast<unsigned int>(a.index >> 32)};
        core::philox_rounds(words, a.key0, a.key1);
        const core::NormalPair pairs[2]{core::normal_pair(words[0], words[1]),
                                        core::normal_pair(words[2], words[3])};
        for (unsigned int i = 0; i < 4; ++i) {
            const unsigned long long number = 4 * block + i;
            if (number < a.first || number >= a.first + a.count) continue;
            const core::NormalPair& pair = pairs[i / 2];
            a.out[number - a.first] = static_cast<float>(i % 2 == 0 ? pair.first : pair.second);
        }
    }
};

#define ATELIER_NORMAL_KERNELS(KERNEL) KERNEL(normal_numbers, atelier::kernels::gpu::NormalNumbers)

#ifdef __CUDACC_RTC__
ATELIER_NORMAL_KERNELS(ATELIER_KERNEL)
#endif

}  // namespace atelier::kernels::gpu
