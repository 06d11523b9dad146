#include "atelier/kernels/gpu/normals.h"

#include <algorithm>

#include "atelier/kernels/gpu/normal_kernels.h"

namespace atelier::kernels::gpu {

void fill_normal(const Launcher& launcher, const std::array<std::uint32_t, 2>& key,
                 std::uint64_t index, std::uint64_t first, std::uint64_t count, float* out) {
    constexpr std::uint64_t per_launch = std::uint64_t{1} << 30;  // well within a grid's limit
    for (std::uint64_t done = 0; done < count; done += per_launch) {
        NormalArguments a{};
        a.out = out + done;
        a.first = first + done;
        a.count = std::min(per_launch, count - done);
        a.index = index;
        a.key0 = key[0];
        a.key1 = key[1];
        const std::uint64_t numbers = a.first % 4 + a.count;  // of whole blocks of Philox
        const auto blocks = (numbers + NormalNumbers::per_block - 1) / NormalNumbers::per_block;
        launcher.launch("normal_numbers", {static_cast<unsigned>(blocks)}, NormalNumbers::threads,
                        a);
    }
}

}  // namespace atelier::kernels::gpu
