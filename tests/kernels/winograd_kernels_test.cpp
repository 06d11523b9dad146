#include "atelier/kernels/winograd_kernels.h"

#include "atelier/kernels/winograd_forward.h"
#include "backends/tensors.h"
#include "kernels/compilations.h"

namespace atelier::kernels::winograd_kernels {

using namespace backends;
namespace {

std::vector<Compilation<Table>> winograd_compilations() {
    return compilations_here<Table>(ATELIER_EVERY_COMPILATION);
}

/// [inner,columns] -> panels [columns/16,inner,16].
Tensor by_panel(const Tensor& matrix) {
    return matrix.view({matrix.size(0), -1, panel}).permute({1, 0, 2}).contiguous();
}

TEST(WinogradKernels, products_of_any_number_of_rows_and_panels_are_right) {
    for (const auto& [name, table] : winograd_compilations()) {
        for (const std::int64_t rows : {1, 2, 5, 6, 7, 13, 14, 15, 29, 43}) {
            for (const std::int64_t columns : {16, 32, 48, 80}) {
                const std::int64_t inner = 19, a_step = inner + 3, c_step = columns + 5;
                const Tensor a = normal({rows, a_step}, "a"), b = normal({inner, columns}, "b"),
                             before = normal({rows, c_step}, "c"), panels = by_panel(b);
                const Tensor product = at::mm(a.narrow(1, 0, inner), b);
                for (const bool add : {false, true}) {
                    Tensor c = before.clone();
                    table->multiply(rows, inner, columns, a.const_data_ptr<float>(), a_step,
                                    panels.const_data_ptr<float>(), inner * panel, add,
                                    c.mutable_data_ptr<float>(), c_step);
                    const Tensor expected = add ? before.narrow(1, 0, columns) + product : product;
                    EXPECT_LT(relative_distance(c.narrow(1, 0, columns), expected), 1e-6)
                        << name << ", " << rows << " rows of " << columns;
                    EXPECT_TRUE(at::equal(c.narrow(1, columns, 5), before.narrow(1, columns, 5)))
                        << name << ": wrote beyond the columns";
                }
            }
        }
    }
}

TEST(WinogradKernels, transposed_products_are_right) {
    for (const auto& [name, table] : winograd_compilations()) {
        for (const std::int64_t inner : {1, 6, 16, 31}) {
            const Tensor a = normal({11, inner}, "a"), b = normal({11, 48}, "b");
            Tensor c = at::empty({inner, 48});
            table->multiply_transposed(11, inner, 48, a.const_data_ptr<float>(),
                                       b.const_data_ptr<float>(), false,
                                       c.mutable_data_ptr<float>());
            EXPECT_LT(relative_distance(c, at::mm(a.t(), b)), 1e-6) << name;
            table->multiply_transposed(11, inner, 48, a.const_data_ptr<float>(),
                                       b.const_data_ptr<float>(), true,
                                       c.mutable_data_ptr<float>());
            EXPECT_LT(relative_distance(c, 2 * at::mm(a.t(), b)), 1e-6) << name;
        }
    }
}

TEST(WinogradKernels, one_row_of_points_at_a_time_gives_the_same_values_as_all_together) {
    constexpr std::int64_t in = 5;
    const Tensor weight = normal({panel, in, 3, 3}, "weight"),
                 packed = weight.view({panel, in, 9}).permute({1, 2, 0}).contiguous();
    const Filters filters{in, panel, 9, 9 * in};
    for (const auto& [name, table] : winograd_compilations()) {
        Tensor all = at::zeros({points, filters.stride()}),
               rows = at::zeros({points, filters.stride()});
        table->transform_filters(filters, 0, weight.const_data_ptr<float>(),
                                 all.mutable_data_ptr<float>());
        for (std::int64_t row = 0; row < window; ++row) {
            table->transform_panel(
                in, packed.const_data_ptr<float>(), row, filters.stride(),
                rows.mutable_data_ptr<float>() + row * window * filters.stride());
        }
        EXPECT_LT(relative_distance(rows, all), 3e-7) << name;
    }
}

TEST(WinogradKernels, every_compilation_convolves) {
    const Tensor x = normal({2, 32, 13, 10}, "x"), weight = normal({48, 32, 3, 3}, "weight") / 17,
                 bias = normal({48}, "bias");
    const Tensor expected = at::conv2d(x.to(at::kDouble), weight.to(at::kDouble),
                                       bias.to(at::kDouble), 1, 1),
                 nhwc = x.permute({0, 2, 3, 1}).contiguous();
    const Images s{2, 13, 10, 32, 48};
    const Filters filters{32, 48, 9, 9 * 32};
    for (const auto& [name, table] : winograd_compilations()) {
        std::vector<float> transformed(static_cast<std::size_t>(points * filters.stride()));
        for (std::int64_t column = 0; column < 48; column += panel)
            table->transform_filters(filters, column, weight.const_data_ptr<float>(),
                                     transformed.data());
        Tensor y = at::empty({2, 13, 10, 48});
        const auto serial_for = [](std::int64_t count, const auto& task) {
            for (std::int64_t i = 0; i < count; ++i) task(i);
        };
        convolve_all(*table, table->float32, s, 1, serial_for, nhwc.const_data_ptr<float>(),
                     transformed.data(), bias.const_data_ptr<float>(), y.mutable_data_ptr<float>());
        EXPECT_LT(relative_distance(y.permute({0, 3, 1, 2}), expected), 2e-6) << name;
    }
}

}  // namespace
}  // namespace atelier::kernels::winograd_kernels
