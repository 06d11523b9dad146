#include "atelier/backends/torch/winograd.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "atelier/backends/torch/fused_norm.h"
#include "atelier/backends/torch/parallel.h"
#include "atelier/backends/torch/torch_ops.h"
#include "atelier/kernels/instructions.h"
#include "atelier/kernels/winograd_forward.h"
#include "backends/tensors.h"
#include "core/soon.h"

namespace atelier::backends {

namespace {

struct ConvCase {
    std::int64_t batch, in, out, height, width;
};

/// Whole and partial tiles, images smaller than a tile, and every remainder of the blocks of rows.
const std::vector<ConvCase> conv_cases{{1, 16, 16, 4, 4},   {1, 16, 32, 1, 1},  {2, 32, 16, 7, 7},
                                       {3, 48, 64, 14, 14}, {1, 64, 48, 5, 11}, {5, 32, 32, 9, 2},
                                       {1, 128, 16, 33, 3}, {2, 16, 16, 28, 28}};

std::string text_of(const ConvCase& c) {
    return fmt::format("{}x{}x{}x{} to {}", c.batch, c.in, c.height, c.width, c.out);
}

std::vector<Tensor> conv_inputs(const ConvCase& c) {
    return {normal({c.batch, c.in, c.height, c.width}, "x"),
            normal({c.out, c.in, 3, 3}, "weight") / std::sqrt(9.0 * static_cast<double>(c.in)),
            normal({c.out}, "bias")};
}

Tensor direct(const std::vector<Tensor>& in) { return at::conv2d(in[0], in[1], in[2], 1, 1); }

std::vector<Tensor> in_float64(const std::vector<Tensor>& tensors) {
    std::vector<Tensor> all;
    for (const Tensor& tensor : tensors) all.push_back(tensor.to(at::kDouble));
    return all;
}

/// The result and its gradients with respect to x, weight and bias.
template <class Function>
std::vector<Tensor> with_gradients(const Function& function, const std::vector<Tensor>& in,
                                   const Tensor& dy) {
    std::vector<Tensor> leaves;
    for (const Tensor& tensor : in) leaves.push_back(tensor.detach().clone().requires_grad_());
    const Tensor y = function(leaves);
    std::vector<Tensor> all = gradients_of((y * dy).sum(), leaves);
    all.insert(all.begin(), y.detach());
    return all;
}

Tensor by_winograd(const std::vector<Tensor>& in) { return winograd_conv2d(in[0], in[1], in[2]); }

struct Threads {
    explicit Threads(int count) : before(at::get_num_threads()) { at::set_num_threads(count); }
    ~Threads() { at::set_num_threads(before); }
    int before;
};

/// One compilation's result and gradient with respect to the filters, for elements of type T.
template <class T>
std::vector<Tensor> by_table(const kernels::winograd_kernels::Table& table,
                             const kernels::winograd_kernels::Loops<T>& loops, const ConvCase& c,
                             at::ScalarType type) {
    using namespace kernels::winograd_kernels;
    const Images s{c.batch, c.height, c.width, c.in, c.out};
    const auto in = conv_inputs(c);
    const auto last = [&](const Tensor& x) {
        return x.to(type).permute({0, 2, 3, 1}).contiguous();
    };
    const auto blank = [](std::vector<std::int64_t> shape, at::ScalarType kind) {
        return at::full(shape, std::nan(""), at::TensorOptions().dtype(kind));
    };
    const Tensor x = last(in[0]), dy = last(normal({c.batch, c.out, c.height, c.width}, "dy")),
                 y = blank({c.batch, c.height, c.width, c.out}, type);
    const Filters filters{c.in, c.out, 9, 9 * c.in};
    const Tensor values = blank({points * filters.stride()}, at::kFloat),
                 gradients = blank({points * filters.stride()}, at::kFloat),
                 weight_grad = blank({c.out, c.in, 3, 3}, at::kFloat);
    const auto floats = [](const Tensor& t) { return t.mutable_data_ptr<float>(); };
    const auto raw = [](const Tensor& t) { return static_cast<T*>(t.mutable_data_ptr()); };
    for (std::int64_t k = 0; k < c.out; k += panel)
        table.transform_filters(filters, k, floats(in[1]), floats(values));
    const std::int64_t step = 5;
    const Tensor work = blank({static_cast<std::int64_t>(block_workspace(s, step))}, at::kFloat);
    for (std::int64_t first = 0; first < s.tiles(); first += step) {
        const Range range{first, std::min(step, s.tiles() - first)};
        convolve(table, loops, s, range, raw(x), floats(values), floats(in[2]), raw(y),
                 floats(work));
        weight_gradient(table, loops, s, range, raw(x), raw(dy), first > 0, floats(gradients),
                        floats(work));
    }
    for (std::int64_t k = 0; k < c.out; k += panel)
        table.filter_gradient(filters, k, floats(gradients), floats(weight_grad));
    return {y.permute({0, 3, 1, 2}), weight_grad};
}

struct NamedTable {
    const char* name;
    const kernels::winograd_kernels::Table* table;
};

std::vector<NamedTable> tables_here() {
    std::vector<NamedTable> tables{{"plain", &kernels::winograd_kernels::plain}};
#ifdef ATELIER_X86_KERNELS
    if (kernels::best_instructions() != kernels::Instructions::plain)
        tables.push_back({"avx2", &kernels::winograd_kernels::avx2});
    if (kernels::best_instructions() == kernels::Instructions::avx512)
        tables.push_back({"avx512", &kernels::winograd_kernels::avx512});
#endif
    return tables;
}

}  // namespace

TEST(InParallel, tasks_run_concurrently) {
    const Threads two(2);
    std::atomic<int> waiting = 0;
    std::atomic<bool> met = false;
    parallel_for(2, [&](std::int64_t) {
        ++waiting;
        if (core::soon([&] { return waiting == 2; })) met = true;
    });
    EXPECT_TRUE(met) << "the second task did not begin before the first one had ended";
}

TEST(InParallel, every_task_runs_once) {
    const Threads two(2);
    std::vector<std::atomic<int>> runs(101);
    parallel_for(101, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
    for (const auto& count : runs) EXPECT_EQ(count, 1);
    parallel_for(0, [](std::int64_t) { FAIL(); });
}

TEST(Winograd, agrees_with_a_direct_convolution_forward_and_backward) {
    for (const int threads : {1, 2, 3}) {
        const Threads some(threads);
        for (const ConvCase& c : conv_cases) {
            SCOPED_TRACE(text_of(c));
            const auto in = conv_inputs(c);
            const Tensor dy = normal({c.batch, c.out, c.height, c.width}, "dy");
            const auto actual = with_gradients(by_winograd, in, dy),
                       expected = with_gradients(direct, in_float64(in), dy.to(at::kDouble));
            for (std::size_t i = 0; i < actual.size(); ++i)
                EXPECT_LT(relative_distance(actual[i], expected[i]), 3e-6) << "output " << i;
            EXPECT_TRUE(actual[0].is_contiguous(at::MemoryFormat::ChannelsLast));
        }
    }
}

TEST(Winograd, is_little_less_precise_than_a_direct_sum) {
    const auto in = conv_inputs({2, 128, 128, 16, 16});
    const Tensor exact = direct(in_float64(in));
    EXPECT_LT(relative_distance(by_winograd(in), exact), 2e-6);
}

TEST(Winograd, every_instruction_set_gives_the_same_in_both_types) {
    for (const NamedTable& named : tables_here()) {
        for (const ConvCase& c : conv_cases) {
            SCOPED_TRACE(fmt::format("{} {}", named.name, text_of(c)));
            const auto in = conv_inputs(c);
            const Tensor dy = normal({c.batch, c.out, c.height, c.width}, "dy");
            const auto expected = with_gradients(direct, in_float64(in), dy.to(at::kDouble));
            const auto floats = by_table(*named.table, named.table->float32, c, at::kFloat);
            const auto halves = by_table(*named.table, named.table->bfloat16, c, at::kBFloat16);
            for (const std::size_t i : {0, 1}) {
                EXPECT_LT(relative_distance(floats[i], expected[2 * i]), 3e-6) << "output " << i;
                EXPECT_LT(relative_distance(halves[i], expected[2 * i]), 6e-3) << "output " << i;
            }
        }
    }
}

TEST(Winograd, a_sample_does_not_depend_on_its_batch_or_on_the_threads) {
    auto in = conv_inputs({5, 32, 48, 14, 14});
    const Tensor together = by_winograd(in);
    const Threads three(3);
    EXPECT_TRUE(by_winograd(in).equal(together));
    in[0] = in[0].narrow(0, 3, 1);
    EXPECT_TRUE(by_winograd(in).equal(together.narrow(0, 3, 1)));
}

TEST(Winograd, any_layout_gives_the_same_values) {
    auto in = conv_inputs({2, 16, 32, 9, 7});
    const Tensor expected = by_winograd(in);
    in[0] = in[0].contiguous(at::MemoryFormat::ChannelsLast);
    in[1] = in[1].contiguous(at::MemoryFormat::ChannelsLast);
    EXPECT_TRUE(by_winograd(in).equal(expected));
    const Tensor dy = normal({2, 32, 9, 7}, "dy");
    const auto gradients = with_gradients(by_winograd, in, dy),
               plain = with_gradients(by_winograd, conv_inputs({2, 16, 32, 9, 7}), dy);
    for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_TRUE(gradients[i].equal(plain[i])) << i;
}

TEST(Winograd, only_requested_gradients_are_computed) {
    auto in = conv_inputs({1, 16, 16, 8, 8});
    in[0].requires_grad_();
    const auto gradients = torch::autograd::grad({by_winograd(in).sum()}, {in[0]});
    EXPECT_EQ(gradients[0].sizes(), in[0].sizes());
    EXPECT_FALSE(in[1].grad().defined());
}

TEST(Winograd, is_used_where_it_pays) {
    const graph::Conv2d same{.out_channels = 32};
    const auto pays = [&](std::int64_t in, std::int64_t out, std::int64_t side,
                          const graph::Conv2d& layer, at::ScalarType type = at::kFloat) {
        return winograd_pays(at::zeros({2, in, side, side}, type),
                             at::zeros({out, in, layer.kernel, layer.kernel}), layer);
    };
    graph::Conv2d halving = same, point = same;
    halving.stride = 2;
    point.kernel = 1;
    point.padding = 0;
    EXPECT_TRUE(pays(32, 64, 14, same));
    EXPECT_TRUE(pays(32, 64, 7, same));
    EXPECT_FALSE(pays(32, 64, 4, same)) << "one tile";
    EXPECT_FALSE(pays(32, 64, 5, same))
        << "more than half of the tiles' pixels are outside the image";
    EXPECT_FALSE(pays(512, 512, 8, same)) << "filters too large for four tiles";
    EXPECT_TRUE(pays(512, 512, 16, same));
    EXPECT_FALSE(pays(1024, 1024, 16, same)) << "filters of 150 MB, for sixteen tiles";
    EXPECT_TRUE(pays(1024, 1024, 32, same));
    EXPECT_FALSE(pays(4, 32, 14, same));
    EXPECT_FALSE(pays(32, 24, 14, same));
    EXPECT_FALSE(pays(32, 32, 14, halving));
    EXPECT_FALSE(pays(32, 32, 14, point));
    EXPECT_FALSE(pays(32, 32, 14, same, at::kDouble));
    const DoubleBackwardGuard double_backward;
    EXPECT_FALSE(pays(32, 64, 14, same));
}

TEST(Winograd, is_not_used_where_autocast_chooses_the_type) {
    const graph::Conv2d same{.out_channels = 32};
    const LowPrecision bfloat16(at::kCPU, at::kBFloat16);
    EXPECT_FALSE(winograd_pays(at::zeros({2, 32, 14, 14}), at::zeros({32, 32, 3, 3}), same));
}

TEST(Winograd, double_backward_is_rejected) {
    std::vector<Tensor> in = conv_inputs({1, 16, 16, 8, 8});
    for (Tensor& tensor : in) tensor.requires_grad_();
    expect_contains(
        error_of([&] { gradients_of(by_winograd(in).square().sum(), in, /*twice=*/true); }),
        "DoubleBackwardGuard");
}

}  // namespace atelier::backends
