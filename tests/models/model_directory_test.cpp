#include "atelier/models/opened_model.h"

#include <cmath>

#include "atelier/core/hash.h"
#include "models/model_fixtures.h"

namespace atelier::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A written model, and the errors on reading it after changes.
class ModelDirectory : public ::testing::Test {
protected:
    ModelDirectory() { write_model(path, model); }

    template <class Change>
    void change_weights(Change change) {
        backends::Parameters weights = model.parameters.clone();
        change(weights);
        backends::write_parameters(path / "model.safetensors", weights);
    }

    template <class Change>
    void change_config(Change change) {
        edit_json(path / "config.json", change);
    }

    /// The error; it must name the file.
    std::string error_message(const std::string& file) const {
        const std::string message = core::error_of([&] { read_model(path); });
        core::expect_contains(message, (path / file).string());
        return message;
    }
    void expect_rejected(const std::string& file, const std::string& part) const {
        core::expect_contains(error_message(file), part);
    }

    core::TestFolder folder;
    fs::path path = folder / "model";
    Model model = tiny_model(tiny_config(), 1);
};

TEST_F(ModelDirectory, is_read_back_with_the_same_bits_and_settings) {
    const Model read = read_model(path);
    EXPECT_EQ(backends::hash_of(read.parameters), backends::hash_of(model.parameters));
    EXPECT_EQ(read.config, model.config);
    EXPECT_EQ(read.spec, model.spec);
    EXPECT_EQ(read.noise.sigma_data, 0.7);
    EXPECT_EQ(read.noise.sigma_min, 0.01);
    EXPECT_EQ(read.noise.sigma_max, 20);
    EXPECT_EQ(read.network.label_dim, 4);
    EXPECT_TRUE(is_model_directory(path));
}

TEST_F(
    ModelDirectory,
    mapped_weights_are_the_same_and_stay_so_when_their_pages_were_released_or_the_file_replaced) {
    const Model mapped = read_model(path, at::kCPU, Weights::mapped);
    ASSERT_TRUE(mapped.mapped);
    EXPECT_FALSE(read_model(path).mapped);
    const std::string hash = backends::hash_of(model.parameters);
    EXPECT_EQ(backends::hash_of(mapped.parameters), hash);
    mapped.mapped->release_pages();
    EXPECT_EQ(backends::hash_of(mapped.parameters), hash);
    write_model(path, tiny_model(tiny_config(), 2));
    mapped.mapped->release_pages();
    EXPECT_EQ(backends::hash_of(mapped.parameters), hash)
        << "who has a model open keeps the file it was opened with";
}

TEST_F(ModelDirectory, an_opened_model_can_be_read_after_its_directory_is_gone) {
    const Model opened = open_model(path);
    EXPECT_EQ(opened.parameters.count(), 0);
    fs::remove_all(path);
    for (const Weights weights : {Weights::copied, Weights::mapped}) {
        EXPECT_EQ(backends::hash_of(read_weights(opened, at::kCPU, weights).parameters),
                  backends::hash_of(model.parameters));
    }
}

TEST_F(ModelDirectory, keeps_unknown_keys) {
    json config = tiny_config();
    config["licence"] = "CC0";
    config["place"] = {{"student", 3}, {"stray", 1}};
    model = tiny_model(config, 1);
    write_model(path, model);
    write_model(folder / "copy", read_model(path));
    json written = core::read_json(folder / "copy/config.json");
    EXPECT_EQ(written.at("checksums").at("model.safetensors"),
              core::sha256_of_file(folder / "copy/model.safetensors"));
    written.erase("checksums");
    EXPECT_EQ(written, config);
}

TEST_F(ModelDirectory, raw_weights_are_stored_beside_and_not_used) {
    const Model raw = tiny_model(tiny_config(), 2);
    write_model(path, model, {{"raw", raw.parameters}});
    EXPECT_EQ(backends::hash_of(backends::read_parameters(path / "model-raw.safetensors")),
              backends::hash_of(raw.parameters));
    EXPECT_EQ(backends::hash_of(read_model(path).parameters), backends::hash_of(model.parameters));
}

TEST_F(ModelDirectory, half_precision_weights_are_read_as_float32) {
    change_weights(
        [&](backends::Parameters& weights) { weights = weights.to(at::kCPU, at::kHalf); });
    const Model read = read_model(path);
    for (const auto& [name, tensor] : read.parameters.tensors()) {
        EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
        EXPECT_TRUE(at::equal(tensor, model.parameters.at(name).to(at::kHalf).to(at::kFloat)))
            << name;
    }
}

TEST_F(ModelDirectory, a_missing_tensor_is_named) {
    change_weights([](backends::Parameters& weights) {
        std::map<std::string, Tensor> kept = weights.tensors();
        kept.erase("model.map_noise.weight");
        weights = backends::Parameters(kept);
    });
    expect_rejected("model.safetensors", "\"model.map_noise.weight\" is missing");
}

TEST_F(ModelDirectory, a_superfluous_tensor_is_named) {
    change_weights([](backends::Parameters& weights) {
        weights.set("model.block1.layer0.weight", at::zeros({8, 8}));
    });
    expect_rejected("model.safetensors",
                    "\"model.block1.layer0.weight\" is not part of the network");
}

TEST_F(ModelDirectory, a_tensor_of_another_shape_is_named_with_both_shapes) {
    change_weights([](backends::Parameters& weights) {
        weights.set("model.output.weight", at::zeros({3, 8}));
    });
    const std::string message = error_message("model.safetensors");
    for (const char* part : {"\"model.output.weight\"", "[3,8]", "[2,8]"})
        core::expect_contains(message, part);
}

TEST_F(ModelDirectory, sizes_changed_after_training_do_not_fit_the_weights) {
    change_config([](json& config) { config["hidden"] = 16; });
    expect_rejected("model.safetensors", "config.json implies");
}

TEST_F(ModelDirectory, non_finite_weights_are_rejected) {
    for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        change_weights([&](backends::Parameters& weights) {
            weights.at("model.block0.layer1.weight")[3][5] = bad;
        });
        expect_rejected("model.safetensors", "not finite");
    }
    change_weights(
        [](backends::Parameters& weights) {  // infinities of both signs, whose sum is NaN
            weights.at("model.output.bias")[0] = HUGE_VAL;
            weights.at("model.output.bias")[1] = -HUGE_VAL;
        });
    expect_rejected("model.safetensors", "not finite");
}

TEST_F(ModelDirectory, integer_weights_are_rejected_by_name) {
    change_weights([](backends::Parameters& weights) {
        weights.set("model.output.bias", at::zeros({2}, at::kLong));
    });
    expect_rejected("model.safetensors", "\"model.output.bias\"");
}

TEST_F(ModelDirectory, the_filters_that_edm_saves_with_its_resampling_layers_are_dropped) {
    change_weights([](backends::Parameters& weights) {
        weights.set("model.enc.32x32_down.conv0.resample_filter", at::full({1, 1, 2, 2}, 0.25));
    });
    EXPECT_EQ(backends::hash_of(read_model(path).parameters), backends::hash_of(model.parameters));
}

TEST_F(ModelDirectory, a_truncated_weights_file_is_rejected) {
    fs::resize_file(path / "model.safetensors", fs::file_size(path / "model.safetensors") - 4);
    error_message("model.safetensors");
}

TEST_F(ModelDirectory, mistakes_in_the_config_are_named_by_their_key) {
    struct Mistake {
        std::string key;
        json value;
        std::string says;
    };
    const std::vector<Mistake> mistakes{
        {"architecture", "mpl", "did you mean \"mlp\"?"},
        {"architecture", 3, "architecture"},
        {"dimensions", nullptr, "dimensions"},
        {"dimensions", 0, "dimensions"},
        {"hidden", "wide", "hidden"},
        {"hidden", 7, "hidden must be even"},
        {"blocks", 2.5, "blocks"},
        {"classes", -1, "classes"},
        {"sigma_data", 0, "sigma_data"},
        {"sigma_min", -1, "sigma_min"},
        {"sigma_max", "80", "sigma_max"},
        {"sigma_max", 0.005, "sigma_min must be below sigma_max"},
        {"data", 5, "data"},
        {"data", {{"kind", "sound"}, {"shape", {2}}}, "data.kind"},
        {"data", {{"kind", "points"}, {"shape", {2}}, {"scale", 1}}, "offset"},
        {"data",
         {{"kind", "points"}, {"shape", {2}}, {"offset", {1}}, {"scale", 1}},
         "data.offset"},
        {"data", {{"kind", "points"}, {"shape", {2}}, {"offset", {1, 2}}, {"scale", 0}}, "scale"},
        {"data", {{"kind", "image"}, {"shape", {2}}}, "data.shape"},
        {"data", {{"kind", "image"}, {"shape", {1, 2, 2}}}, "data.shape is [1,2,2]"}};
    const json good = core::read_json(path / "config.json");
    for (const Mistake& mistake : mistakes) {
        SCOPED_TRACE(mistake.key + " = " + mistake.value.dump());
        core::write_json(path / "config.json", good);
        change_config([&](json& config) {
            config[mistake.key] = mistake.value;
            if (mistake.value.is_null()) config.erase(mistake.key);
        });
        expect_rejected("config.json", mistake.says);
    }
}

TEST_F(ModelDirectory, a_config_without_data_defaults_to_the_networks_shape) {
    change_config([](json& config) { config.erase("data"); });
    const Model read = read_model(path);
    EXPECT_EQ(read.spec, (data::SampleSpec{data::SampleSpec::Kind::points, {2}, {0, 0}, 1, {}}));
}

TEST_F(ModelDirectory, a_path_that_is_not_a_model_is_rejected) {
    core::expect_contains(core::error_of([&] { read_model(folder / "nowhere"); }),
                          "there is no such model");
    EXPECT_FALSE(is_model_directory(folder / "nowhere"));
    fs::remove(path / "model.safetensors");
    error_message("model.safetensors");
}

TEST_F(ModelDirectory, the_config_alone_can_be_read_without_weights) {
    fs::remove(path / "model.safetensors");
    const Model read = read_model_config(path);
    EXPECT_EQ(read.network.data_shape, graph::Shape{2});
    EXPECT_TRUE(read.parameters.empty());
}

TEST_F(ModelDirectory, initial_weights_depend_on_the_seed_alone) {
    const auto hash = [](std::uint64_t seed) {
        return backends::hash_of(init_model(tiny_config(), seed).parameters);
    };
    EXPECT_EQ(hash(1), hash(1));
    EXPECT_NE(hash(1), hash(2));
}

TEST(SampleSpec, images_are_quantised_like_edm_and_converted_back) {
    const data::SampleSpec spec{data::SampleSpec::Kind::image, {1, 2, 3}, {}, 1, {}};
    const Tensor samples = at::tensor({-2.0F, -1.0F, -0.5F, 0.0F, 0.999F, 2.0F}).view({1, 1, 2, 3});
    const Tensor pixels = data::to_user_space(spec, samples);
    EXPECT_TRUE(
        at::equal(pixels, at::tensor({0, 0, 64, 128, 255, 255}, at::kByte).view({1, 2, 3, 1})));
    const Tensor all = at::arange(256, at::kByte).view({1, 16, 16, 1});
    EXPECT_TRUE(at::equal(data::to_user_space(spec, data::to_model_space(spec, all)), all));
    EXPECT_EQ(data::to_model_space(spec, at::zeros({5, 4, 6, 3}, at::kByte)).sizes(),
              at::IntArrayRef({5, 3, 4, 6}));
}

/// Frozen models of a distillation may be stored in bfloat16. Autocast rounds the same matrices,
/// except per-sample ones, which it uses as they are if they are float32.
TEST(FrozenModel, bfloat16_matrices_denoise_nearly_as_well_as_autocast) {
    const json unet{{"architecture", "adm_unet"},
                    {"resolution", 8},
                    {"channels", 3},
                    {"classes", 4},
                    {"model_channels", 32},
                    {"channel_mult", {1, 2}},
                    {"num_blocks", 1},
                    {"attention_resolutions", {4}},
                    {"channel_mult_emb", 4},
                    {"sigma_data", 0.5}};
    const Model model = tiny_model(unet, 1);
    Model frozen = model;
    frozen.parameters = model.parameters.cast_weights(at::kBFloat16);
    const backends::Compute compute{at::kBFloat16};
    const Tensor x = at::sin(at::arange(2 * 3 * 64, at::kFloat)).view({2, 3, 8, 8}),
                 sigma = at::tensor({0.3F, 40.0F});
    const std::vector<std::int64_t> classes{1, 3};
    at::NoGradGuard no_gradients;
    const auto denoised = [&](const Model& one, const backends::Compute& how) {
        return one.denoiser(how).denoise(x, sigma, diffusion::one_hot(classes, 4));
    };
    const Tensor exact = denoised(model, {});
    const auto away = [&](const Model& one) {
        return ((denoised(one, compute) - exact).norm() / exact.norm()).item<double>();
    };
    Model rounded = model;
    rounded.parameters = frozen.parameters.cast_weights(at::kFloat);
    EXPECT_TRUE(at::equal(denoised(frozen, compute), denoised(rounded, compute)))
        << "nothing but their rounding";
    EXPECT_LT(away(frozen), 0.02);
    EXPECT_LT(away(frozen), 2 * away(model));
    std::int64_t halved = 0;
    for (const auto& [name, tensor] : frozen.parameters.tensors())
        halved += tensor.scalar_type() == at::kBFloat16 ? tensor.numel() : 0;
    EXPECT_GT(halved, model.parameters.count() * 9 / 10);
}

TEST(SampleSpec, points_are_scaled_and_shifted_and_converted_back) {
    const data::SampleSpec spec{data::SampleSpec::Kind::points, {2}, {1, -2}, 3, {}};
    EXPECT_TRUE(at::equal(data::to_user_space(spec, at::tensor({1.0F, 1.0F}).view({1, 2})),
                          at::tensor({4.0F, 1.0F}).view({1, 2})));
    const Tensor places = at::tensor({0.25F, 7.0F, -3.0F, 2.0F}).view({2, 2});
    EXPECT_TRUE(
        at::allclose(data::to_user_space(spec, data::to_model_space(spec, places)), places));
}

TEST(SampleSpec, survives_json) {
    for (const data::SampleSpec& spec :
         {data::SampleSpec{data::SampleSpec::Kind::image, {3, 8, 8}, {}, 1, {"cat", "dog"}},
          data::SampleSpec{data::SampleSpec::Kind::points, {2}, {0.1, 1.0 / 3}, 1e-7, {}}}) {
        const json written = json::parse(data::to_json(spec).dump());
        EXPECT_EQ(data::sample_spec_from_json(core::JsonObject(written, "config.json")), spec);
    }
}

}  // namespace
}  // namespace atelier::models
