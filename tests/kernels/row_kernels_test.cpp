#include "atelier/kernels/row_kernels.h"

#include "backends/tensors.h"
#include "kernels/compilations.h"

namespace atelier::kernels::row_kernels {
namespace {

using backends::normal;
using backends::relative_distance;

std::vector<Compilation<Table>> row_compilations() {
    return compilations_here<Table>(ATELIER_EVERY_COMPILATION);
}

TEST(RowKernels, agree_with_libtorch_at_every_length) {
    for (const auto& [name, table] : row_compilations()) {
        for (const std::int64_t count : {1, 3, 4, 15, 16, 17, 49, 64, 100}) {
            const Tensor x = normal({count}, "x") * 3, other = normal({count}, "other");
            const float* from = x.const_data_ptr<float>();
            Tensor y = at::empty({count});
            float* to = y.mutable_data_ptr<float>();
            table->silu(count, from, to);
            EXPECT_LT(relative_distance(y, at::silu(x)), 3e-7);
            table->add(count, from, other.const_data_ptr<float>(), 0.5F, to);
            EXPECT_LT(relative_distance(y, (x + other) * 0.5), 2e-7);
            const float* rows[]{from, other.const_data_ptr<float>(), from};
            const float weights[]{1, -2, 0.25F};
            table->weighted_sum(count, 3, rows, weights, to);
            EXPECT_LT(relative_distance(y, x * 1.25 - other * 2), 3e-7);
            const Tensor pixels = normal({7, count}, "pixels"), away = pixels - x;
            Tensor sums = at::empty({2, count});
            table->moments(7, count, pixels.const_data_ptr<float>(), from,
                           sums.mutable_data_ptr<float>());
            EXPECT_LT(relative_distance(sums, at::stack({away.sum(0), (away * away).sum(0)})),
                      1e-6);
        }
    }
}

}  // namespace
}  // namespace atelier::kernels::row_kernels
