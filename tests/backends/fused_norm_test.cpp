#include "atelier/backends/torch/fused_norm.h"

#include "backends/tensors.h"

namespace atelier::backends {

namespace {

constexpr double eps = 1e-5;

std::int64_t groups_of(std::int64_t channels) { return std::min<std::int64_t>(32, channels / 4); }

struct NormCase {
    std::int64_t batch, channels, height, width;
    bool modulated, silu;
};

const std::vector<NormCase> norm_cases{
    {1, 4, 1, 1, true, true},   {3, 12, 5, 7, true, true},   {2, 36, 1, 1, false, true},
    {1, 96, 8, 8, true, false}, {2, 96, 3, 3, false, false}, {5, 4, 9, 2, false, true},
    {1, 36, 6, 4, true, true},  {4, 256, 2, 2, true, true},
};

std::string text_of(const NormCase& c) {
    return fmt::format("{}x{}x{}x{}{}{}", c.batch, c.channels, c.height, c.width,
                       c.modulated ? " modulated" : "", c.silu ? " silu" : "");
}

/// x, weight, bias and, where modulated, modulation.
std::vector<Tensor> inputs_of(const NormCase& c) {
    std::vector<Tensor> inputs{normal({c.batch, c.channels, c.height, c.width}, "x") * 2 + 0.5,
                               normal({c.channels}, "weight") + 1, normal({c.channels}, "bias")};
    if (c.modulated) inputs.push_back(normal({c.batch, 2 * c.channels}, "modulation"));
    return inputs;
}

/// The definition in the header, in LibTorch's operations.
Tensor from_definition(const std::vector<Tensor>& in, std::int64_t groups, bool silu) {
    Tensor y = at::group_norm(in[0], groups, in[1], in[2], eps);
    if (in.size() > 3) {
        const auto halves = in[3].unsqueeze(2).unsqueeze(3).chunk(2, 1);
        y = y * (1 + halves[0]) + halves[1];
    }
    return silu ? y * y.sigmoid() : y;
}

Tensor fused(const std::vector<Tensor>& in, std::int64_t groups, bool silu) {
    return fused_group_norm(in[0], in[1], in[2], in.size() > 3 ? in[3] : Tensor(), groups, eps,
                            silu);
}

struct Answer {
    Tensor y;
    std::vector<Tensor> gradients;
};

template <class Function>
Answer answer_of(const Function& function, const std::vector<Tensor>& in, const Tensor& dy,
                 std::int64_t groups, bool silu) {
    std::vector<Tensor> leaves;
    for (const Tensor& tensor : in) leaves.push_back(tensor.detach().clone().requires_grad_());
    const Tensor y = function(leaves, groups, silu);
    return {y, gradients_of((y * dy).sum(), leaves)};
}

std::vector<Tensor> doubled(const std::vector<Tensor>& tensors) {
    std::vector<Tensor> all;
    for (const Tensor& tensor : tensors) all.push_back(tensor.to(at::kDouble));
    return all;
}

/// Compares values and gradients with the definition in float64.
void expect_as_defined(const NormCase& c, const std::vector<Tensor>& in, double tolerance) {
    SCOPED_TRACE(text_of(c));
    const Tensor dy =
        normal({c.batch, c.channels, c.height, c.width}, "dy").to(in[0].scalar_type());
    const Answer actual = answer_of(fused, in, dy, groups_of(c.channels), c.silu);
    const Answer expected =
        answer_of(from_definition, doubled(in), dy.to(at::kDouble), groups_of(c.channels), c.silu);
    EXPECT_LT(relative_distance(actual.y, expected.y), tolerance);
    for (std::size_t i = 0; i < in.size(); ++i) {
        EXPECT_EQ(actual.gradients[i].scalar_type(), in[i].scalar_type());
        EXPECT_LT(relative_distance(actual.gradients[i], expected.gradients[i]), tolerance)
            << "gradient of input " << i;
    }
}

}  // namespace

TEST(FusedNorm, float32_agrees_with_the_definition_forward_and_backward) {
    for (const NormCase& c : norm_cases) expect_as_defined(c, inputs_of(c), 1e-5);
}

TEST(FusedNorm, bfloat16_agrees_with_the_definition_within_its_precision) {
    for (const NormCase& c : norm_cases) {
        std::vector<Tensor> in = inputs_of(c);
        in[0] = in[0].to(at::kBFloat16);
        if (c.modulated) in[3] = in[3].to(at::kBFloat16);
        expect_as_defined(c, in, 1e-2);
    }
}

TEST(FusedNorm, the_result_is_channels_last_and_keeps_its_type) {
    const NormCase c{2, 12, 4, 4, true, true};
    std::vector<Tensor> in = inputs_of(c);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        in[0] = in[0].to(type);
        const Tensor y = fused(in, 3, true);
        EXPECT_EQ(y.scalar_type(), type);
        EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
    }
}

TEST(FusedNorm, any_layout_of_the_input_gives_the_same_values) {
    const NormCase c{2, 12, 5, 3, true, true};
    std::vector<Tensor> in = inputs_of(c);
    const Tensor expected = fused(in, 3, true);
    in[0] = in[0].contiguous(at::MemoryFormat::ChannelsLast);
    EXPECT_TRUE(fused(in, 3, true).equal(expected));
    in[0] = in[0].transpose(2, 3).contiguous().transpose(2, 3);
    EXPECT_TRUE(fused(in, 3, true).equal(expected));
}

TEST(FusedNorm, a_sample_does_not_depend_on_its_batch) {
    const NormCase c{4, 36, 5, 3, true, true};
    std::vector<Tensor> in = inputs_of(c);
    const Tensor together = fused(in, 9, true);
    for (const std::size_t i : {0, 3}) in[i] = in[i].narrow(0, 2, 1);
    EXPECT_TRUE(fused(in, 9, true).equal(together.narrow(0, 2, 1)));
}

TEST(FusedNorm, a_large_mean_costs_no_more_precision_than_in_libtorch) {
    for (const std::int64_t size : {1, 7, 64}) {
        const NormCase c{2, 12, size, size, false, false};
        std::vector<Tensor> in = inputs_of(c);
        in[0] = in[0] + 1000;
        const Tensor exact = from_definition(doubled(in), 3, false);
        // 1000 in float32 is known to 3e-5, a standard deviation of 2 makes that 1.5e-5 of the
        // result.
        EXPECT_LT(relative_distance(fused(in, 3, false), exact), 1e-4) << size;
        EXPECT_LT(relative_distance(fused(in, 3, false), exact),
                  4 * relative_distance(from_definition(in, 3, false), exact))
            << size;
    }
}

TEST(FusedNorm, the_gradient_survives_a_large_mean) {
    const NormCase c{2, 12, 16, 16, true, true};
    std::vector<Tensor> in = inputs_of(c);
    in[0] = in[0] + 1000;
    expect_as_defined(c, in, 1e-3);
}

TEST(FusedNorm, nan_affects_only_its_group) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        for (const bool silu : {false, true}) {
            std::vector<Tensor> in = inputs_of({2, 12, 3, 3, true, silu});
            in[0][1][5][2][0] = std::nan("");
            in[0] = in[0].to(type);
            const Tensor bad = fused(in, 3, silu).isnan();
            EXPECT_TRUE(bad[1].narrow(0, 4, 4).all().item<bool>());
            EXPECT_EQ(bad.sum().item<std::int64_t>(), 4 * 9);
        }
    }
}

TEST(FusedNorm, gradients_of_nan_are_nan) {
    std::vector<Tensor> in = inputs_of({1, 12, 3, 3, false, true});
    in[0][0][5][2][0] = std::nan("");
    const Answer answer = answer_of(fused, in, at::ones_like(in[0]), 3, true);
    EXPECT_TRUE(answer.gradients[0][0].narrow(0, 4, 4).isnan().all().item<bool>());
    EXPECT_FALSE(answer.gradients[0][0].narrow(0, 0, 4).isnan().any().item<bool>());
    EXPECT_TRUE(answer.gradients[1][5].isnan().item<bool>());
}

TEST(FusedNorm, silu_is_right_far_out_on_both_sides) {
    const Tensor offset = at::tensor({-1e4F, -200.0F, -88.0F, -20.0F, 20.0F, 88.0F, 200.0F, 1e4F});
    const std::vector<Tensor> in{normal({1, 8, 4, 4}, "x"), at::zeros({8}), offset};
    const Tensor y = fused(in, 2, true);
    const Tensor expected =
        at::silu(offset.to(at::kDouble)).view({1, 8, 1, 1}).expand({1, 8, 4, 4});
    EXPECT_LT((y - expected).abs().max().item<double>(), 1e-9 + 1e-6 * 20);
    EXPECT_TRUE(at::allclose(y.to(at::kDouble).narrow(1, 4, 4), expected.narrow(1, 4, 4), 1e-6));
}

TEST(FusedNorm, gradients_agree_with_finite_differences) {
    const NormCase c{2, 12, 3, 2, true, true};
    const std::vector<Tensor> in = inputs_of(c);
    const Tensor dy = normal({2, 12, 3, 2}, "dy");
    const auto value = [&](const std::vector<Tensor>& at) {
        return (fused(at, 3, true).to(at::kDouble) * dy).sum().item<double>();
    };
    const std::vector<Tensor> gradients = answer_of(fused, in, dy, 3, true).gradients;
    for (std::size_t i = 0; i < in.size(); ++i) {
        const Tensor along = normal(in[i].sizes().vec(), "along");
        const double step = 1e-3;
        std::vector<Tensor> ahead = in, behind = in;
        ahead[i] = in[i] + step * along;
        behind[i] = in[i] - step * along;
        const double expected = (value(ahead) - value(behind)) / (2 * step);
        EXPECT_NEAR((gradients[i] * along).sum().item<double>(), expected,
                    2e-3 * std::abs(expected) + 1e-3)
            << "input " << i;
    }
}

TEST(FusedNorm, float64_uses_libtorch_and_is_exact) {
    const NormCase c{2, 12, 3, 3, true, true};
    const std::vector<Tensor> in = doubled(inputs_of(c));
    EXPECT_LT(relative_distance(fused(in, 3, true), from_definition(in, 3, true)), 1e-14);
}

TEST(DoubleBackwardGuard, allows_double_backward) {
    const DoubleBackwardGuard active;
    const NormCase c{2, 12, 3, 3, true, true};
    const auto penalty_gradient = [&](const std::vector<Tensor>& in, const auto& function) {
        std::vector<Tensor> leaves;
        for (const Tensor& tensor : in) leaves.push_back(tensor.detach().clone().requires_grad_());
        const Tensor y = function(leaves, 3, true);
        const Tensor gradient = gradients_of(y.square().sum(), {leaves[0]}, /*twice=*/true)[0];
        return gradients_of(gradient.square().sum(), leaves);
    };
    const auto actual = penalty_gradient(inputs_of(c), fused);
    const auto expected = penalty_gradient(doubled(inputs_of(c)), from_definition);
    for (std::size_t i = 0; i < actual.size(); ++i)
        EXPECT_LT(relative_distance(actual[i], expected[i]), 1e-4) << "input " << i;
}

TEST(DoubleBackwardGuard, holds_while_any_of_several_is_alive) {
    // LibTorch's operations keep the layout, the fused ones return channels last: that shows which
    // ones ran.
    const std::vector<Tensor> in = inputs_of({1, 12, 4, 4, true, true});
    const auto from_parts = [&] {
        return !fused(in, 3, true).is_contiguous(at::MemoryFormat::ChannelsLast);
    };
    EXPECT_FALSE(from_parts());
    {
        const DoubleBackwardGuard outer;
        {
            const DoubleBackwardGuard inner(false);
            EXPECT_TRUE(from_parts());
        }
        EXPECT_TRUE(from_parts());
    }
    {
        const DoubleBackwardGuard idle(false);
        EXPECT_FALSE(from_parts());
    }
    EXPECT_FALSE(from_parts());
}

TEST(DoubleBackwardGuard, is_needed_for_double_backward) {
    std::vector<Tensor> in = inputs_of({2, 12, 3, 3, false, true});
    for (Tensor& tensor : in) tensor.requires_grad_();
    const Tensor y = fused(in, 3, true).square().sum();
    expect_contains(error_of([&] { gradients_of(y, {in[0]}, /*twice=*/true); }),
                    "DoubleBackwardGuard");
}

}  // namespace atelier::backends
