#include "atelier/kernels/gpu/group_norm.h"

#include "atelier/kernels/gpu/host_launcher.h"
#include "backends/tensors.h"

namespace atelier::kernels::gpu {

using namespace backends;

namespace {

constexpr double norm_eps = 1e-5;

struct GpuNormCase {
    GroupNormSizes sizes;
    bool modulated, silu;
};

// One to several chunks, one to several blocks of channels, widths of 1, 4 and 8 elements, groups
// that packs do not respect.
const std::vector<GpuNormCase> gpu_norm_cases{
    {{1, 1, 4, 1}, true, true},      {{3, 35, 12, 3}, true, true},
    {{2, 1, 36, 9}, false, true},    {{2, 400, 96, 24}, true, false},
    {{2, 9, 96, 24}, false, false},  {{5, 18, 7, 7}, true, true},
    {{2, 5000, 8, 2}, true, true},   {{1, 70, 300, 30}, true, true},
    {{2, 9, 2056, 257}, true, true}, {{18, 3, 48, 8}, true, true},
    {{1, 33, 192, 32}, false, true}, {{1, 500, 40, 1}, true, true},
};

/// x [N,P,C], weight [C], bias [C] and, where modulated, modulation [N,2C].
struct NormInputs {
    Tensor x, weight, bias, modulation, dy;
};

NormInputs inputs_for(const GpuNormCase& c, at::ScalarType type, at::ScalarType modulation_type) {
    const auto& s = c.sizes;
    NormInputs in{(normal({s.samples, s.positions, s.channels}, "x") * 2 + 0.5).to(type),
                  normal({s.channels}, "weight") + 1,
                  normal({s.channels}, "bias"),
                  {},
                  normal({s.samples, s.positions, s.channels}, "dy").to(type)};
    if (c.modulated)
        in.modulation = normal({s.samples, 2 * s.channels}, "modulation").to(modulation_type);
    return in;
}

/// y, dx, dweight, dbias and, where modulated, dmodulation. What is not written stays NaN.
using NormResults = std::vector<Tensor>;

NormResults computed(const GpuNormCase& c, const NormInputs& in, const Launcher& launcher) {
    const auto blank = [](const Tensor& like) { return at::full_like(like, std::nan("")); };
    const auto floats = [](std::int64_t count) { return at::full({count}, std::nan("")); };
    const auto& s = c.sizes;
    const bool narrow = in.x.scalar_type() == at::kBFloat16;
    const ElementType type = narrow ? ElementType::bfloat16 : ElementType::float32;
    GroupNormArguments a = group_norm_arguments(s, static_cast<float>(norm_eps), c.silu);
    const Tensor y = blank(in.x), dx = blank(in.x), dweight = floats(s.channels),
                 dbias = floats(s.channels), mean = floats(s.samples * s.groups),
                 rstd = floats(s.samples * s.groups), partial = floats(group_norm_partial_size(a)),
                 totals = floats(2 * s.samples * s.channels),
                 terms = floats(2 * s.samples * s.groups);
    NormResults results{y, dx, dweight, dbias};
    const auto out = [](const Tensor& tensor) { return tensor.mutable_data_ptr<float>(); };
    a.x = in.x.const_data_ptr();
    a.y = y.mutable_data_ptr();
    a.weight = in.weight.const_data_ptr<float>();
    a.bias = in.bias.const_data_ptr<float>();
    if (c.modulated) {
        a.modulation = in.modulation.const_data_ptr();
        a.modulation_type = in.modulation.scalar_type() == at::kFloat ? ModulationType::float32
                                                                      : ModulationType::bfloat16;
        results.push_back(blank(in.modulation));
        a.dmodulation = results.back().mutable_data_ptr();
    }
    a.mean = out(mean);
    a.rstd = out(rstd);
    a.partial = out(partial);
    group_norm_forward(launcher, type, a);
    partial.fill_(std::nan(""));
    a.dy = in.dy.const_data_ptr();
    a.y = dx.mutable_data_ptr();
    a.totals = out(totals);
    a.terms = out(terms);
    a.dweight = out(dweight);
    a.dbias = out(dbias);
    group_norm_backward(launcher, type, a);
    return results;
}

/// The definition, in float64 by LibTorch.
Tensor defined(const GpuNormCase& c, const NormInputs& in) {
    const auto& s = c.sizes;
    const Tensor groups =
        in.x.view({s.samples, s.positions, s.groups, s.channels / s.groups}).permute({0, 2, 1, 3});
    const Tensor mean = groups.mean({2, 3}, true),
                 variance = (groups - mean).square().mean({2, 3}, true);
    Tensor y = ((groups - mean) / (variance + norm_eps).sqrt())
                   .permute({0, 2, 1, 3})
                   .reshape({s.samples, s.positions, s.channels});
    y = y * in.weight + in.bias;
    if (c.modulated) {
        const auto halves = in.modulation.unsqueeze(1).chunk(2, 2);
        y = y * (1 + halves[0]) + halves[1];
    }
    return c.silu ? y * y.sigmoid() : y;
}

NormResults expected_of(const GpuNormCase& c, const NormInputs& in) {
    const auto leaf = [](const Tensor& tensor) {
        return tensor.defined() ? tensor.to(at::kDouble, false, /*copy=*/true).requires_grad_()
                                : tensor;
    };
    const NormInputs leaves{leaf(in.x), leaf(in.weight), leaf(in.bias), leaf(in.modulation), {}};
    std::vector<Tensor> of{leaves.x, leaves.weight, leaves.bias};
    if (c.modulated) of.push_back(leaves.modulation);
    const Tensor y = defined(c, leaves);
    NormResults results{y};
    for (Tensor& gradient : gradients_of((y * in.dy.to(at::kDouble)).sum(), of))
        results.push_back(gradient);
    return results;
}

std::string text_of(const GpuNormCase& c) {
    return fmt::format("{} samples, {} positions, {} channels, {} groups{}{}", c.sizes.samples,
                       c.sizes.positions, c.sizes.channels, c.sizes.groups,
                       c.modulated ? ", modulated" : "", c.silu ? ", silu" : "");
}

void expect_defined(const GpuNormCase& c, const NormInputs& in, double tolerance) {
    SCOPED_TRACE(text_of(c));
    const NormResults actual = computed(c, in, HostLauncher()), expected = expected_of(c, in);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < actual.size(); ++i)
        EXPECT_LT(relative_distance(actual[i], expected[i]), tolerance) << "output " << i;
}

bool same_bits(const NormResults& a, const NormResults& b) {
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (!a[i].equal(b[i])) return false;
    }
    return a.size() == b.size();
}

}  // namespace

TEST(GpuGroupNorm, float32_is_the_definition_forward_and_backward) {
    for (const GpuNormCase& c : gpu_norm_cases)
        expect_defined(c, inputs_for(c, at::kFloat, at::kFloat), 1e-5);
}

TEST(GpuGroupNorm, bfloat16_is_the_definition_within_its_precision) {
    for (const GpuNormCase& c : gpu_norm_cases) {
        for (const at::ScalarType modulation : {at::kFloat, at::kBFloat16})
            expect_defined(c, inputs_for(c, at::kBFloat16, modulation), 5e-3);
    }
}

TEST(GpuGroupNorm, gradients_agree_with_finite_differences) {
    const GpuNormCase c{{2, 35, 12, 3}, true, true};
    const NormInputs in = inputs_for(c, at::kFloat, at::kFloat);
    const NormResults results = computed(c, in, HostLauncher());
    const auto value = [&](const NormInputs& at) {
        return (computed(c, at, HostLauncher())[0].to(at::kDouble) * in.dy).sum().item<double>();
    };
    const std::vector<Tensor NormInputs::*> of{&NormInputs::x, &NormInputs::weight,
                                               &NormInputs::bias, &NormInputs::modulation};
    for (std::size_t i = 0; i < of.size(); ++i) {
        const Tensor along = normal((in.*of[i]).sizes().vec(), "along");
        constexpr double step = 1e-3;
        NormInputs ahead = in, behind = in;
        ahead.*of[i] = in.*of[i] + step * along;
        behind.*of[i] = in.*of[i] - step * along;
        const double expected = (value(ahead) - value(behind)) / (2 * step);
        EXPECT_NEAR((results[i + 1] * along).sum().item<double>(), expected,
                    2e-3 * std::abs(expected) + 1e-3)
            << "input " << i;
    }
}

TEST(GpuGroupNorm, the_order_of_blocks_and_threads_changes_no_bit) {
    for (const GpuNormCase& c : gpu_norm_cases) {
        const NormInputs in = inputs_for(c, at::kBFloat16, at::kFloat);
        EXPECT_TRUE(same_bits(computed(c, in, HostLauncher()),
                              computed(c, in, HostLauncher(HostLauncher::Order::backward))))
            << text_of(c);
    }
}

TEST(GpuGroupNorm, a_sample_does_not_depend_on_its_batch) {
    GpuNormCase c{{4, 400, 96, 24}, true, true};
    NormInputs in = inputs_for(c, at::kBFloat16, at::kFloat);
    const NormResults together = computed(c, in, HostLauncher());
    c.sizes.samples = 1;
    for (Tensor* tensor : {&in.x, &in.modulation, &in.dy}) *tensor = tensor->narrow(0, 2, 1);
    const NormResults alone = computed(c, in, HostLauncher());
    for (const std::size_t i : {0, 1, 4})
        EXPECT_TRUE(alone[i].equal(together[i].narrow(0, 2, 1))) << "output " << i;
}

TEST(GpuGroupNorm, packs_and_single_elements_agree) {
    const GpuNormCase c{{2, 300, 96, 24}, true, true};
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        NormInputs in = inputs_for(c, type, at::kFloat);
        const NormResults packed = computed(c, in, HostLauncher());
        // One element further in memory, where packs would not be aligned.
        in.x = at::empty({in.x.numel() + 1}, in.x.options())
                   .narrow(0, 1, in.x.numel())
                   .view(in.x.sizes())
                   .copy_(in.x);
        const NormResults single = computed(c, in, HostLauncher());
        for (std::size_t i = 0; i < packed.size(); ++i)
            EXPECT_LT(relative_distance(single[i], packed[i]), type == at::kFloat ? 1e-6 : 5e-3);
    }
}

TEST(GpuGroupNorm, a_large_mean_costs_no_precision_beyond_that_of_x) {
    const GpuNormCase c{{2, 700, 24, 3}, true, true};
    NormInputs in = inputs_for(c, at::kFloat, at::kFloat);
    in.x = in.x + 1000;  // known to 3e-5, which is 1.5e-5 of the standard deviation
    expect_defined(c, in, 1e-3);
}

TEST(GpuGroupNorm, equal_elements_have_no_variance) {
    const GpuNormCase c{{1, 50, 8, 2}, false, false};
    NormInputs in = inputs_for(c, at::kFloat, at::kFloat);
    in.x = at::full_like(in.x, 0.1);
    const NormResults results = computed(c, in, HostLauncher());
    EXPECT_TRUE(results[0].equal(in.bias.expand_as(in.x)));
    EXPECT_TRUE(results[1].isfinite().all().item<bool>());
}

TEST(GpuGroupNorm, nan_affects_only_its_group) {
    const GpuNormCase c{{2, 400, 96, 24}, true, true};
    NormInputs in = inputs_for(c, at::kFloat, at::kFloat);
    in.x[1][123][5] = std::nan("");
    for (const std::size_t output : {0, 1}) {
        const Tensor bad = computed(c, in, HostLauncher())[output].isnan();
        EXPECT_TRUE(bad[1].narrow(1, 4, 4).all().item<bool>());
        EXPECT_EQ(bad.sum().item<std::int64_t>(), 4 * 400);
    }
}

TEST(GpuGroupNorm, silu_is_right_far_out_on_both_sides) {
    const GpuNormCase c{{1, 16, 8, 2}, false, true};
    NormInputs in = inputs_for(c, at::kFloat, at::kFloat);
    in.weight = at::zeros({8});
    in.bias = at::tensor({-1e4F, -200.0F, -88.0F, -20.0F, 20.0F, 88.0F, 200.0F, 1e4F});
    const NormResults actual = computed(c, in, HostLauncher()), expected = expected_of(c, in);
    for (std::size_t i = 0; i < actual.size(); ++i)
        EXPECT_TRUE(at::allclose(actual[i].to(at::kDouble), expected[i], 1e-5, 1e-7)) << i;
}

TEST(GpuGroupNorm, bfloat16_is_rounded_to_nearest_even) {
    const auto bits = [](std::uint32_t value) {
        return rounded<Bfloat16>(core::float_of(value)).bits;
    };
    EXPECT_EQ(bits(0x3f808000), 0x3f80);  // halfway: down to the even one
    EXPECT_EQ(bits(0x3f818000), 0x3f82);  // halfway: up to the even one
    EXPECT_EQ(bits(0x3f808001), 0x3f81);
    EXPECT_EQ(bits(0xbf817fff), 0xbf81);
    EXPECT_EQ(bits(0x7f7fffff), 0x7f80);  // past the largest: infinity
    EXPECT_EQ(bits(0xff800001), 0x7fff);  // NaN
}

TEST(GpuGroupNorm, frozen_weights_get_no_gradient) {
    const GpuNormCase c{{1, 16, 8, 2}, false, true};
    const NormInputs in = inputs_for(c, at::kFloat, at::kFloat);
    GroupNormArguments a = group_norm_arguments(c.sizes, 1e-5F, true);
    const Tensor floats = at::zeros({10, 16 * 8});
    const auto row = [&](int i) { return floats[i].mutable_data_ptr<float>(); };
    a.x = in.x.const_data_ptr();
    a.dy = in.dy.const_data_ptr();
    a.weight = in.weight.const_data_ptr<float>();
    a.bias = in.bias.const_data_ptr<float>();
    a.y = row(0);
    a.mean = row(1);
    a.rstd = row(2);
    a.partial = row(3);
    group_norm_forward(HostLauncher(), ElementType::float32, a);
    a.totals = row(4);
    a.terms = row(5);
    a.y = row(6);
    group_norm_backward(HostLauncher(), ElementType::float32, a);
    EXPECT_TRUE(floats[6].view({1, 16, 8}).equal(computed(c, in, HostLauncher())[1]));
}

TEST(GpuGroupNorm, sizes_beyond_its_integers_are_told) {
    EXPECT_TRUE(can_group_norm({1, 1, 1, 1}));
    EXPECT_TRUE(can_group_norm({4096, 256 * 256, 512, 32}));
    EXPECT_FALSE(can_group_norm({0, 1, 1, 1}));
    EXPECT_FALSE(can_group_norm({1, 1, 6, 4}));
    EXPECT_FALSE(can_group_norm({65536, 1, 1, 1}));
    EXPECT_FALSE(can_group_norm({1, std::int64_t{1} << 21, 1024, 32}));
}

}  // namespace atelier::kernels::gpu
