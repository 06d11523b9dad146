#include "atelier/backends/torch/torch_ops.h"

#include "atelier/backends/torch/fused_norm.h"
#include "backends/immediate.h"
#include "backends/tensors.h"

namespace atelier::backends {

namespace {

const Parameters no_parameters;

Parameters layer(std::vector<std::int64_t> weight, std::int64_t bias) {
    Parameters parameters;
    parameters.set("a.weight", normal(std::move(weight), "weight"));
    parameters.set("a.bias", normal({bias}, "bias"));
    return parameters;
}

/// Attention as defined in the header: channel h*(C/heads)+c of q is at 3*(h*(C/heads)+c), that of
/// k one further, that of v two further.
Tensor attention_by_loops(const Tensor& qkv, std::int64_t heads) {
    const std::int64_t n = qkv.size(0), channels = qkv.size(1) / 3, width = qkv.size(3),
                       positions = qkv.size(2) * width;
    const std::int64_t each = channels / heads;
    const Tensor out = at::zeros({n, channels, qkv.size(2), width}, at::kDouble);
    const Tensor from = qkv.to(at::kDouble).reshape({n, 3 * channels, positions}).contiguous();
    const auto in = from.accessor<double, 3>();
    auto to = out.accessor<double, 4>();
    for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t head = 0; head < heads; ++head) {
            for (std::int64_t query = 0; query < positions; ++query) {
                std::vector<double> probabilities;
                double total = 0;
                for (std::int64_t key = 0; key < positions; ++key) {
                    double product = 0;
                    for (std::int64_t c = head * each; c < (head + 1) * each; ++c)
                        product += in[i][3 * c][query] * in[i][3 * c + 1][key];
                    probabilities.push_back(
                        std::exp(product / std::sqrt(static_cast<double>(each))));
                    total += probabilities.back();
                }
                for (std::int64_t c = head * each; c < (head + 1) * each; ++c) {
                    double sum = 0;
                    for (std::int64_t key = 0; key < positions; ++key) {
                        sum += probabilities[static_cast<std::size_t>(key)] / total *
                               in[i][3 * c + 2][key];
                    }
                    to[i][c][query / width][query % width] = sum;
                }
            }
        }
    }
    return out;
}

}  // namespace

TEST(TorchOps, attention_finds_q_k_and_v_interleaved_per_channel) {
    Immediate ops(no_parameters);
    for (const std::int64_t heads : {1, 2, 4}) {
        const Tensor qkv = normal({2, 3 * 8, 3, 5}, "qkv");
        EXPECT_LT(relative_distance(ops.attention(qkv, heads), attention_by_loops(qkv, heads)),
                  1e-6)
            << heads << " heads";
    }
}

TEST(TorchOps, attention_accepts_any_memory_layout) {
    Immediate ops(no_parameters);
    const Tensor qkv = normal({2, 24, 4, 4}, "qkv");
    const Tensor last = qkv.contiguous(at::MemoryFormat::ChannelsLast);
    EXPECT_LT(relative_distance(ops.attention(last, 2), ops.attention(qkv, 2)), 1e-6);
}

TEST(TorchOps, attention_supports_double_backward_under_the_guard) {
    Immediate ops(no_parameters);
    const DoubleBackwardGuard active;
    const Tensor qkv = normal({1, 12, 2, 3}, "qkv").requires_grad_();
    const Tensor gradient =
        gradients_of(ops.attention(qkv, 2).square().sum(), {qkv}, /*twice=*/true)[0];
    EXPECT_GT(gradients_of(gradient.square().sum(), {qkv})[0].norm().item<double>(), 0);
}

TEST(TorchOps, convolutions_return_channels_last_for_any_layout) {
    for (const std::int64_t channels : {1, 3}) {
        const Parameters parameters = layer({8, channels, 3, 3}, 8);
        Immediate ops(parameters);
        const Tensor x = normal({2, channels, 5, 4}, "x"),
                     y = ops.conv2d(x, "a", {.out_channels = 8});
        EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast)) << channels;
        EXPECT_LT(relative_distance(
                      y, at::conv2d(x, parameters.at("a.weight"), parameters.at("a.bias"), 1, 1)),
                  1e-6);
    }
}

TEST(TorchOps, features_stay_float32_under_bfloat16_autocast) {
    const Parameters parameters = layer({8, 5}, 8);
    Immediate ops(parameters);
    const Tensor x = normal({3, 5}, "x");
    const Tensor expected = ops.linear(x, "a", {.out_features = 8});
    const LowPrecision bfloat16(at::kCPU, at::kBFloat16);
    EXPECT_TRUE(ops.linear(x, "a", {.out_features = 8}).equal(expected));
    EXPECT_EQ(ops.linear(x.unsqueeze(1), "a", {.out_features = 8}).scalar_type(), at::kBFloat16)
        << "tokens do not stay float32";
}

TEST(TorchOps, resampling_repeats_pixels_upwards_and_averages_them_downwards) {
    Immediate ops(no_parameters);
    const Tensor x = at::arange(1, 9, at::kFloat).view({1, 1, 2, 4});
    const Tensor down = ops.resample(x, graph::Resample::down);
    EXPECT_TRUE(down.equal(at::tensor({3.5F, 5.5F}).view({1, 1, 1, 2})));
    const Tensor up = ops.resample(down, graph::Resample::up);
    EXPECT_TRUE(
        up.equal(at::tensor({3.5F, 3.5F, 5.5F, 5.5F, 3.5F, 3.5F, 5.5F, 5.5F}).view({1, 1, 2, 4})));
    EXPECT_TRUE(ops.resample(x, graph::Resample::none).equal(x));
}

TEST(TorchOps, smooth_resampling_filters_with_1331) {
    Immediate ops(no_parameters);
    const Tensor x = normal({1, 2, 4, 6}, "x");
    // From 2-D rows of taps, with zeros beyond the edges: out(i) = sum_k f(k) x(2i + k - 1), and
    // its transpose with gain 4 upwards.
    const double taps[] = {0.125, 0.375, 0.375, 0.125};
    const auto at_pixel = [&](std::int64_t c, std::int64_t row, std::int64_t column) {
        return row < 0 || row >= 4 || column < 0 || column >= 6
                   ? 0.0
                   : x[0][c][row][column].item<double>();
    };
    const Tensor down = ops.resample(x, graph::Resample::smooth_down),
                 up = ops.resample(x, graph::Resample::smooth_up);
    ASSERT_EQ(down.sizes().vec(), (graph::Shape{1, 2, 2, 3}));
    ASSERT_EQ(up.sizes().vec(), (graph::Shape{1, 2, 8, 12}));
    double halved = 0, doubled = 0;
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) {
            halved += taps[i] * taps[j] * at_pixel(1, 2 * 0 + i - 1, 2 * 2 + j - 1);
            // The pixel (3, 6) upwards takes from those rows r with 2r + i - 1 = 3.
            if ((3 - i + 1) % 2 == 0 && (6 - j + 1) % 2 == 0)
                doubled += 4 * taps[i] * taps[j] * at_pixel(1, (4 - i) / 2, (7 - j) / 2);
        }
    }
    EXPECT_NEAR(down[0][1][0][2].item<double>(), halved, 1e-6);
    EXPECT_NEAR(up[0][1][3][6].item<double>(), doubled, 1e-6);
    const Tensor inside = ops.resample(x, graph::Resample::smooth_down_valid);
    EXPECT_EQ(inside.sizes().vec(), (graph::Shape{1, 2, 1, 2}));
    EXPECT_LT(relative_distance(ops.resample(at::constant_pad_nd(x, {1, 1, 1, 1}),
                                             graph::Resample::smooth_down_valid),
                                down),
              1e-6);
}

TEST(TorchOps, odd_sizes_double) {
    Immediate ops(no_parameters);
    const Tensor x = normal({2, 3, 7, 5}, "x");
    const Tensor up = ops.resample(x, graph::Resample::up);
    EXPECT_EQ(up.sizes().vec(), (graph::Shape{2, 3, 14, 10}));
    EXPECT_TRUE(ops.resample(up, graph::Resample::down).allclose(x));
}

TEST(TorchOps, pixel_unshuffle_makes_patches_channels_and_shuffle_undoes_it) {
    Immediate ops(no_parameters);
    const Tensor x = normal({2, 3, 6, 9}, "x");
    const Tensor patches = ops.pixel_unshuffle(x, 3);
    EXPECT_EQ(patches.sizes().vec(), (graph::Shape{2, 27, 2, 3}));
    // Channel c*9 + 3*i + j holds pixel (i, j) of every patch of channel c.
    EXPECT_EQ(patches[1][2 * 9 + 3 * 1 + 2][1][2].item<float>(),
              x[1][2][3 * 1 + 1][3 * 2 + 2].item<float>());
    EXPECT_TRUE(ops.pixel_shuffle(patches, 3).equal(x));
}

TEST(TorchOps, sinusoid_is_cosines_then_sines_of_falling_frequencies) {
    Immediate ops(no_parameters);
    const std::vector<float> values{-1.5F, 0.0F, 2.25F};
    const Tensor embedded = ops.sinusoid(at::tensor(values), {.width = 8});
    ASSERT_EQ(embedded.sizes().vec(), (graph::Shape{3, 8}));
    for (std::int64_t n = 0; n < 3; ++n) {
        for (std::int64_t i = 0; i < 4; ++i) {
            const double angle =
                values[static_cast<std::size_t>(n)] * std::pow(1e-4, static_cast<double>(i) / 4);
            EXPECT_NEAR(embedded[n][i].item<double>(), std::cos(angle), 1e-6);
            EXPECT_NEAR(embedded[n][i + 4].item<double>(), std::sin(angle), 1e-6);
        }
    }
}

TEST(TorchOps, sinusoid_with_endpoint_ends_at_1e_4_and_may_begin_with_sines) {
    Immediate ops(no_parameters);
    const Tensor embedded =
        ops.sinusoid(at::tensor({300.0F}), {.width = 6, .endpoint = true, .sines_first = true});
    const double frequencies[] = {1, 1e-2, 1e-4};
    for (std::int64_t i = 0; i < 3; ++i) {
        EXPECT_NEAR(embedded[0][i].item<double>(), std::sin(300 * frequencies[i]), 2e-5);
        EXPECT_NEAR(embedded[0][i + 3].item<double>(), std::cos(300 * frequencies[i]), 2e-5);
    }
}

TEST(TorchOps, fourier_features_have_frequencies_that_no_gradient_reaches) {
    Parameters parameters;
    parameters.set("freqs", at::tensor({0.25F, -3.0F}).requires_grad_());
    Immediate ops(parameters);
    const Tensor x = at::tensor({0.5F, 1.25F}).requires_grad_();
    const Tensor features = ops.fourier(x, "freqs", 4);
    ASSERT_EQ(features.sizes().vec(), (graph::Shape{2, 4}));
    EXPECT_NEAR(features[1][0].item<double>(), std::sin(2 * M_PI * 1.25 * 0.25), 1e-6);
    EXPECT_NEAR(features[1][3].item<double>(), std::cos(2 * M_PI * 1.25 * 3), 1e-5);
    features.sum().backward();
    EXPECT_TRUE(x.grad().defined());
    EXPECT_FALSE(parameters.at("freqs").grad().defined());
}

TEST(TorchOps, features_are_added_to_every_pixel) {
    Immediate ops(no_parameters);
    const Tensor x = normal({2, 3, 4, 5}, "x"), shift = normal({2, 3}, "shift");
    EXPECT_TRUE(ops.add(x, shift).equal(x + shift.view({2, 3, 1, 1})));
}

TEST(TorchOps, convolution_takes_stride_and_padding_and_reads_any_layout) {
    const Parameters parameters = layer({5, 3, 4, 4}, 5);
    Immediate ops(parameters);
    const Tensor x = normal({2, 3, 9, 8}, "x");
    const Tensor y =
        ops.conv2d(x, "a", {.out_channels = 5, .kernel = 4, .stride = 2, .padding = 1});
    ASSERT_EQ(y.sizes().vec(), (graph::Shape{2, 5, 4, 4}));
    // The corner sees the padding: rows and columns -1 to 2.
    const Tensor window = x[1].narrow(1, 0, 3).narrow(2, 0, 3),
                 kernel = parameters.at("a.weight")[4].narrow(1, 1, 3).narrow(2, 1, 3);
    EXPECT_NEAR(y[1][4][0][0].item<double>(),
                ((window * kernel).sum() + parameters.at("a.bias")[4]).item<double>(), 1e-4);
    const Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
    EXPECT_TRUE(ops.conv2d(last, "a", {.out_channels = 5, .kernel = 4, .stride = 2, .padding = 1})
                    .equal(y));
}

TEST(TorchOps, linear_without_bias) {
    const Parameters parameters = layer({4, 3}, 4);
    Immediate ops(parameters);
    const Tensor x = normal({2, 3}, "x");
    const Tensor without = ops.linear(x, "a", {.out_features = 4, .bias = false});
    EXPECT_LT(relative_distance(without, x.matmul(parameters.at("a.weight").t())), 1e-6);
    EXPECT_LT(relative_distance(ops.linear(x, "a", {.out_features = 4}),
                                without + parameters.at("a.bias")),
              1e-6);
}

TEST(TorchOps, group_norm_modulates_by_scale_and_shift_before_silu) {
    const Parameters parameters = layer({8}, 8);
    Immediate ops(parameters);
    const Tensor x = normal({2, 8, 3, 3}, "x");
    const Tensor modulation = normal({2, 16}, "modulation");
    const Tensor y = ops.group_norm(x, "a", {.groups = 2, .eps = 1e-6, .silu = true}, modulation);
    const Tensor norm =
        at::group_norm(x, 2, parameters.at("a.weight"), parameters.at("a.bias"), 1e-6);
    const auto halves = modulation.view({2, 16, 1, 1}).chunk(2, 1);
    EXPECT_LT(relative_distance(y, at::silu(norm * (1 + halves[0]) + halves[1])), 1e-6);
}

TEST(TorchOps, layer_norm_standardises_each_sample) {
    Parameters parameters = layer({6}, 6);
    parameters.set("a.weight", at::ones({6}));
    parameters.set("a.bias", at::zeros({6}));
    Immediate ops(parameters);
    const Tensor y = ops.layer_norm(normal({3, 6}, "x") * 5 + 2, "a", 1e-5);
    EXPECT_LT(y.mean(1).abs().max().item<double>(), 1e-6);
    EXPECT_LT((y.square().mean(1) - 1).abs().max().item<double>(), 1e-4);
}

TEST(TorchOps, concat_joins_channels_and_global_average_takes_the_mean_of_each) {
    Immediate ops(no_parameters);
    const Tensor a = normal({2, 3, 4, 5}, "a"), b = normal({2, 1, 4, 5}, "b");
    const Tensor joined = ops.concat(a, b);
    EXPECT_TRUE(joined.narrow(1, 0, 3).equal(a));
    EXPECT_TRUE(joined.narrow(1, 3, 1).equal(b));
    const Tensor average = ops.global_average(joined);
    ASSERT_EQ(average.sizes().vec(), (graph::Shape{2, 4}));
    EXPECT_NEAR(average[1][3].item<double>(), b[1].mean().item<double>(), 1e-6);
}

TEST(TorchOps, a_prefix_is_prepended_to_every_name) {
    Parameters parameters;
    parameters.merge(layer({4, 3}, 4), "student.");
    const Tensor x = normal({2, 3}, "x");
    Immediate with(parameters, "student."), without(parameters);
    EXPECT_EQ(with.linear(x, "a", {.out_features = 4}).sizes().vec(), (graph::Shape{2, 4}));
    expect_contains(error_of([&] { without.linear(x, "a", {.out_features = 4}); }),
                    "no tensor \"a.");
}

TEST(TorchOps, gradients_through_a_chain_of_layers_agree_with_finite_differences) {
    Parameters parameters;
    parameters.set("conv.weight", normal({12, 4, 3, 3}, "w") / 6);
    parameters.set("conv.bias", normal({12}, "b"));
    parameters.set("norm.weight", normal({4}, "nw") + 1);
    parameters.set("norm.bias", normal({4}, "nb"));
    parameters = parameters.to(at::kCPU, at::kDouble);
    Immediate ops(parameters);
    const Tensor dy = normal({1, 8}, "dy").to(at::kDouble);
    const auto value = [&](const Tensor& x) {
        const Tensor h = ops.attention(ops.conv2d(x, "conv", {.out_channels = 12}), 2);
        const Tensor norm = ops.group_norm(h, "norm", {.groups = 2, .silu = true});
        const Tensor up =
            ops.resample(ops.resample(norm, graph::Resample::up), graph::Resample::down);
        const Tensor joined = ops.concat(ops.scale(ops.add(up, x), 0.5),
                                         ops.pixel_shuffle(ops.pixel_unshuffle(ops.silu(h), 2), 2));
        return (ops.global_average(joined) * dy).sum();
    };
    const Tensor x = normal({1, 4, 2, 4}, "start").to(at::kDouble).requires_grad_();
    const Tensor gradient = gradients_of(value(x), {x})[0];
    const at::NoGradGuard no_gradients;
    for (std::int64_t i = 0; i < x.numel(); ++i) {
        const Tensor step = at::zeros_like(x);
        step.view(-1)[i] = 1e-6;
        const double expected = ((value(x + step) - value(x - step)) / 2e-6).item<double>();
        EXPECT_NEAR(gradient.reshape(-1)[i].item<double>(), expected,
                    1e-7 + 1e-6 * std::abs(expected));
    }
}

TEST(LowPrecision, computes_in_bfloat16_while_alive_and_leaves_parameters_alone) {
    const Parameters parameters = layer({4, 3}, 4);
    Immediate ops(parameters);
    const Tensor tokens = normal({2, 1, 3}, "tokens");
    const auto type = [&] { return ops.linear(tokens, "a", {.out_features = 4}).scalar_type(); };
    {
        const LowPrecision active(at::kCPU, at::kBFloat16);
        EXPECT_EQ(type(), at::kBFloat16);
        {
            const LowPrecision inner(at::kCPU, at::kBFloat16);
            EXPECT_EQ(type(), at::kBFloat16);
        }
        EXPECT_EQ(type(), at::kBFloat16);
    }
    EXPECT_EQ(type(), at::kFloat);
    const LowPrecision idle(at::kCPU, std::nullopt);
    EXPECT_EQ(type(), at::kFloat);
    EXPECT_EQ(parameters.at("a.weight").scalar_type(), at::kFloat);
}

}  // namespace atelier::backends
