#include "atelier/backends/torch/quantised.h"

#include "backends/tensors.h"

namespace atelier::backends {
namespace {

Parameters layers() {
    Parameters parameters;
    parameters.set("a.weight", normal({5, 3, 3, 3}, "weight") *
                                   at::tensor({1.0F, 1e-3F, 1e3F, 0.0F, 1.0F}).view({5, 1, 1, 1}));
    parameters.set("a.bias", normal({5}, "bias"));
    parameters.set("b.weight", normal({4, 2}, "linear"));
    return parameters;
}

Parameters quantised_layers() {
    Parameters parameters = layers();
    quantise(parameters, "a", 2.5F);
    return parameters;
}

TEST(Quantised, every_weight_is_within_half_a_step_whatever_its_channels_size) {
    const Parameters steps = quantised_layers();
    EXPECT_EQ(steps.at("a.weight").scalar_type(), at::kChar);
    const Tensor away =
        (dequantised(steps).at("a.weight") - layers().at("a.weight")).abs().flatten(1).amax(1);
    EXPECT_TRUE((away <= steps.at("a.weight_scale") * 0.5001).all().item<bool>());
    EXPECT_EQ(steps.at("a.weight").abs().amax().item<int>(), 127);
    EXPECT_FLOAT_EQ(input_range(steps, "a"), 2.5F);
}

TEST(Quantised, dequantising_leaves_the_networks_own_tensors_in_float32) {
    const Parameters full = dequantised(quantised_layers());
    EXPECT_EQ(full.tensors().size(), 3U);
    for (const auto& [name, tensor] : full.tensors())
        EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
    EXPECT_TRUE(full.at("b.weight").equal(layers().at("b.weight")));
    EXPECT_EQ(without_quantisation(quantised_layers(), "file").tensors().size(), 3U);
}

TEST(Quantised, inputs_are_rounded_and_clamped_to_the_range) {
    const Tensor x = at::tensor({-9.0F, -1.0F, 0.0F, 0.4F / 127, 0.6F / 127, 1.0F, 3.0F});
    EXPECT_LT(
        (fake_quantised(x, 1.0) - at::tensor({-1.0F, -1.0F, 0.0F, 0.0F, 1.0F / 127, 1.0F, 1.0F}))
            .abs()
            .max()
            .item<float>(),
        1e-7);
}

struct Damage {
    const char* name;
    std::function<void(Parameters&)> damage;
    const char* mentioned;
};

class DamagedSteps : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedSteps, are_rejected_by_name) {
    Parameters steps = quantised_layers();
    GetParam().damage(steps);
    const std::string error = error_of([&] { without_quantisation(steps, "model.safetensors"); });
    expect_contains(error, "model.safetensors");
    expect_contains(error, GetParam().mentioned);
}

Parameters without(const Parameters& all, const std::string& name) {
    auto tensors = all.tensors();
    tensors.erase(name);
    return Parameters(tensors);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, DamagedSteps,
    ::testing::Values(
        Damage{"no_scale", [](Parameters& p) { p = without(p, "a.weight_scale"); },
               "a.weight_scale"},
        Damage{"no_range", [](Parameters& p) { p = without(p, "a.input_range"); }, "a.input_range"},
        Damage{"short_scale", [](Parameters& p) { p.set("a.weight_scale", at::ones({4})); },
               "a.weight_scale"},
        Damage{"zero_scale", [](Parameters& p) { p.set("a.weight_scale", at::zeros({5})); },
               "positive"},
        Damage{"range_not_a_number",
               [](Parameters& p) { p.set("a.input_range", at::scalar_tensor(std::nan(""))); },
               "a.input_range"},
        Damage{"whole_range",
               [](Parameters& p) { p.set("a.input_range", at::scalar_tensor(3, at::kInt)); },
               "float32"},
        Damage{"no_convolution",
               [](Parameters& p) { p.set("b.weight", at::ones({4, 2}, at::kChar)); }, "b.weight"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace atelier::backends
