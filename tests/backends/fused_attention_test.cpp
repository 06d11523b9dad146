#include "atelier/backends/torch/fused_attention.h"

#include <cmath>

#include "atelier/kernels/attention_kernels.h"
#include "backends/tensors.h"
#include "kernels/compilations.h"

namespace atelier::backends {
namespace {

struct AttentionCase {
    std::int64_t batch, heads, width, height, across;
};

/// Fewer and more tokens than a panel and than a query block, and widths that are and are not
/// multiples of a panel.
const std::vector<AttentionCase> attention_cases{{1, 1, 1, 1, 1},   {2, 1, 64, 7, 7},
                                                 {3, 2, 5, 2, 3},   {1, 3, 16, 4, 4},
                                                 {2, 2, 33, 5, 13}, {1, 2, 8, 15, 8}};

std::string text_of(const AttentionCase& c) {
    return fmt::format("{} heads of {}, {}x{}", c.heads, c.width, c.height, c.across);
}

Tensor qkv_of(const AttentionCase& c) {
    return normal({c.batch, 3 * c.heads * c.width, c.height, c.across}, "qkv") * 1.5;
}

/// The definition of Ops::attention in LibTorch's operations.
Tensor attention_from_definition(const Tensor& qkv, std::int64_t heads) {
    const std::int64_t n = qkv.size(0), channels = qkv.size(1) / 3,
                       tokens = qkv.size(2) * qkv.size(3), width = channels / heads;
    const Tensor split = qkv.reshape({n, heads, width, 3, tokens});
    const Tensor q = split.select(3, 0), k = split.select(3, 1), v = split.select(3, 2);
    const Tensor probabilities =
        at::softmax(at::matmul(q.transpose(2, 3), k) / std::sqrt(static_cast<double>(width)), -1);
    return at::matmul(v, probabilities.transpose(2, 3))
        .reshape({n, channels, qkv.size(2), qkv.size(3)});
}

struct Attention {
    Tensor y, gradient;
};

template <class Function>
Attention attention_answer(const Function& function, const Tensor& qkv, const Tensor& dy,
                           std::int64_t heads) {
    const Tensor leaf = qkv.detach().clone().requires_grad_();
    const Tensor y = function(leaf, heads);
    return {y, gradients_of((y * dy).sum(), {leaf})[0]};
}

/// Compares values and gradients with the definition in float64.
void expect_as_defined(const AttentionCase& c, at::ScalarType type, double tolerance) {
    SCOPED_TRACE(text_of(c));
    const Tensor qkv = qkv_of(c).to(type),
                 dy = normal({c.batch, c.heads * c.width, c.height, c.across}, "dy").to(type);
    const Attention actual = attention_answer(fused_attention, qkv, dy, c.heads);
    const Attention expected = attention_answer(attention_from_definition, qkv.to(at::kDouble),
                                                dy.to(at::kDouble), c.heads);
    EXPECT_EQ(actual.y.scalar_type(), type);
    EXPECT_EQ(actual.gradient.scalar_type(), type);
    EXPECT_TRUE(actual.y.is_contiguous(at::MemoryFormat::ChannelsLast));
    EXPECT_LT(relative_distance(actual.y, expected.y), tolerance);
    EXPECT_LT(relative_distance(actual.gradient, expected.gradient), tolerance);
}

TEST(FusedAttention, float32_agrees_with_the_definition_forward_and_backward) {
    for (const AttentionCase& c : attention_cases) expect_as_defined(c, at::kFloat, 2e-6);
}

TEST(FusedAttention, bfloat16_is_rounded_once_each_way) {
    for (const AttentionCase& c : attention_cases) expect_as_defined(c, at::kBFloat16, 4e-3);
}

TEST(FusedAttention, any_layout_of_the_input_gives_the_same_values) {
    const Tensor qkv = qkv_of(attention_cases[4]);
    const Tensor expected = fused_attention(qkv, 2);
    EXPECT_TRUE(fused_attention(qkv.contiguous(at::MemoryFormat::ChannelsLast), 2).equal(expected));
    EXPECT_TRUE(
        fused_attention(qkv.transpose(2, 3).contiguous().transpose(2, 3), 2).equal(expected));
}

TEST(FusedAttention, a_sample_does_not_depend_on_its_batch) {
    const Tensor qkv = qkv_of({4, 2, 24, 5, 3});
    EXPECT_TRUE(
        fused_attention(qkv.narrow(0, 2, 1), 2).equal(fused_attention(qkv, 2).narrow(0, 2, 1)));
}

TEST(FusedAttention, double_backward_is_rejected_with_a_message) {
    const Tensor qkv = qkv_of(attention_cases[2]).requires_grad_();
    expect_contains(error_of([&] {
                        gradients_of(fused_attention(qkv, 2).square().sum(), {qkv}, /*twice=*/true);
                    }),
                    "DoubleBackwardGuard");
}

TEST(FusedAttention, takes_four_dimensions_of_two_types_on_the_cpu) {
    EXPECT_TRUE(can_fuse_attention(at::zeros({1, 3, 1, 1})));
    EXPECT_TRUE(can_fuse_attention(at::zeros({1, 3, 1, 1}, at::kBFloat16)));
    EXPECT_FALSE(can_fuse_attention(at::zeros({1, 3, 1, 1}, at::kDouble)));
    EXPECT_FALSE(can_fuse_attention(at::zeros({1, 3, 1})));
    EXPECT_FALSE(can_fuse_attention(at::zeros({0, 3, 1, 1})));
}

std::vector<kernels::Compilation<kernels::attention_kernels::Table>> attention_compilations() {
    using namespace kernels::attention_kernels;
    return kernels::compilations_here<Table>(ATELIER_EVERY_COMPILATION);
}

constexpr std::initializer_list<std::int64_t> row_lengths{1, 3, 4, 15, 16, 17, 49, 64, 100};

TEST(AttentionKernels, softmax_and_its_backward_agree_with_libtorch_at_every_length) {
    for (const auto& [name, table] : attention_compilations()) {
        for (const std::int64_t count : row_lengths) {
            const Tensor x = normal({count}, "x") * 3, p = at::softmax(x * 0.7, 0),
                         dp = normal({count}, "dp");
            Tensor y = x.clone();
            table->softmax(count, 0.7F, y.mutable_data_ptr<float>());
            EXPECT_LT(relative_distance(y, p), 3e-7) << name;
            const Tensor expected = 0.7 * p * (dp - (p * dp).sum());
            y.copy_(dp);
            table->softmax_backward(count, 0.7F, p.const_data_ptr<float>(),
                                    y.mutable_data_ptr<float>());
            EXPECT_LT((y - expected).norm().item<double>(), 1e-6) << name;
        }
    }
}

TEST(AttentionKernels, softmax_of_large_values_is_finite_and_propagates_nan) {
    for (const auto& [name, table] : attention_compilations()) {
        std::vector<float> x(20, -1e30F);
        x[7] = 1e30F;
        table->softmax(20, 1, x.data());
        EXPECT_EQ(x[7], 1) << name;
        EXPECT_LT(x[0], 1e-30F) << name;
        x[3] = std::nanf("");
        table->softmax(20, 1, x.data());
        EXPECT_TRUE(std::isnan(x[3])) << name;
    }
}

TEST(AttentionKernels, deinterleave_and_interleave_tokens_at_every_length) {
    for (const auto& [name, table] : attention_compilations()) {
        for (const std::int64_t count : row_lengths) {
            const Tensor tokens = normal({count, 3}, "tokens").to(at::kBFloat16).to(at::kFloat),
                         halves = tokens.to(at::kBFloat16);
            const auto floats = [](const Tensor& tensor) {
                return tensor.mutable_data_ptr<float>();
            };
            const auto bits = [](const Tensor& tensor) {
                return static_cast<kernels::attention_kernels::Bfloat16*>(
                    tensor.mutable_data_ptr());
            };
            for (const bool half : {false, true}) {
                const Tensor parts = at::zeros({3, count});
                float *q = floats(parts), *k = q + count, *v = k + count;
                if (half) table->bfloat16.deinterleave(count, bits(halves), q, k, v);
                else table->float32.deinterleave(count, floats(tokens), q, k, v);
                EXPECT_TRUE(parts.equal(tokens.t())) << name << ' ' << count;
                const Tensor back = at::zeros_like(half ? halves : tokens);
                if (half) table->bfloat16.interleave(count, q, k, v, bits(back));
                else table->float32.interleave(count, q, k, v, floats(back));
                EXPECT_TRUE(back.equal(half ? halves : tokens)) << name << ' ' << count;
            }
            Tensor back = at::zeros({count}, at::kBFloat16), read = at::zeros({count});
            table->bfloat16.write(count, floats(tokens.flatten()), bits(back));
            EXPECT_TRUE(back.equal(halves.flatten().narrow(0, 0, count)));
            table->bfloat16.read(count, bits(back), floats(read));
            EXPECT_TRUE(read.equal(tokens.flatten().narrow(0, 0, count)));
        }
    }
}

}  // namespace
}  // namespace atelier::backends
