#include "atelier/inference/quantise.h"

#include "atelier/backends/torch/quantised.h"
#include "atelier/inference/pipeline.h"
#include "backends/tensors.h"
#include "models/model_fixtures.h"

namespace atelier::inference {
namespace {

using nlohmann::json;

TEST(BestRange, keeps_the_largest_where_all_magnitudes_are_equally_frequent) {
    EXPECT_DOUBLE_EQ(best_range(std::vector<double>(2048, 1.0), 3.0), 3.0);
}

TEST(BestRange, clips_a_few_large_values_for_finer_steps_of_the_many) {
    std::vector<double> counts(2048, 0.0);
    std::fill(counts.begin(), counts.begin() + 205, 1e5);  // below a tenth
    counts.back() = 1;
    const double range = best_range(counts, 1.0);
    EXPECT_GE(range, 0.09);
    EXPECT_LT(range, 0.2);
}

std::vector<LayerError> five_layers() {
    std::vector<LayerError> layers;
    for (const auto& [name, share, error] :
         std::vector<std::tuple<const char*, double, double>>{{"first", 0.1, 1e-6},
                                                              {"cheap", 0.3, 0.003},
                                                              {"dear", 0.3, 0.1},
                                                              {"small", 0.01, 0.003},
                                                              {"last", 0.29, 1e-6}}) {
        layers.push_back({{name, 1.0, share}, error});
    }
    return layers;
}

std::vector<std::string> in_int8(const std::vector<LayerError>& layers) {
    std::vector<std::string> names;
    for (const LayerError& each : layers) {
        if (each.in_int8) names.push_back(each.layer.name);
    }
    return names;
}

TEST(ChooseLayers,
     takes_what_costs_least_for_its_work_up_to_the_tolerance_and_never_the_first_or_last) {
    EXPECT_EQ(in_int8(choose_layers(five_layers(), 0.0)), std::vector<std::string>{});
    EXPECT_EQ(in_int8(choose_layers(five_layers(), 0.0035)), (std::vector<std::string>{"cheap"}));
    EXPECT_EQ(in_int8(choose_layers(five_layers(), 0.01)),
              (std::vector<std::string>{"cheap", "small"}));
    EXPECT_EQ(in_int8(choose_layers(five_layers(), 1.0)),
              (std::vector<std::string>{"cheap", "dear", "small"}));
}

json unet_config() {
    return {{"architecture", "adm_unet"},
            {"resolution", 8},
            {"channels", 2},
            {"classes", 3},
            {"model_channels", 32},
            {"channel_mult", {1, 2}},
            {"num_blocks", 1},
            {"attention_resolutions", {4}}};
}

models::Model student() {
    json config = unet_config();
    config["place"] = {{"student", 0}, {"cell", {0, 2}}};
    models::Model model = models::init_model(config, 1);
    model.parameters = backends::filled(networks::trace(model.network).parameters);
    return model;
}

const QuantisationSettings everything{.samples = 8, .seed = 3, .tolerance = 1};

TEST(Quantise, has_the_reported_error_and_the_directory_loads_like_any_other) {
    const core::TestFolder folder;
    const models::Model full = student();
    models::write_model(folder / "full", full);
    models::Model model = full;
    const auto layers = quantise(model, {{0, 2}}, everything);
    models::write_model(folder / "int8", model);

    const auto exact = Pipeline::load(folder / "full", {.engine = {Engine::Kind::openvino}});
    const auto int8 = Pipeline::load(
        folder / "int8", {.engine = {Engine::Kind::openvino, Engine::Precision::automatic}});
    EXPECT_EQ(int8->engine().precision, Engine::Precision::int8);
    const std::vector<std::int64_t> classes{0, 2};
    const auto request = class_requests(12, 5, classes, exact->prior());
    const Tensor z = exact->draw(request);
    const double reported = model.quantisation->error;
    const double found = backends::relative_distance(int8->draw(request), z);
    EXPECT_GT(reported, 1e-4);
    EXPECT_LT(found, 2 * reported + 1e-2) << reported;  // bfloat16 adds its own error
    EXPECT_LT(std::filesystem::file_size(folder / "int8/model.safetensors"),
              std::filesystem::file_size(folder / "full/model.safetensors") / 2);
    EXPECT_EQ(layers.size(), model.quantisation->layers.size());
    EXPECT_EQ(int8->parameters_of_student(0), full.parameters.count());

    // The same directory as float32 weights, for readers without int8.
    const models::Model read = models::read_model(folder / "int8");
    for (const auto& [name, tensor] : read.parameters.tensors()) {
        if (name.ends_with(".weight")) {
            EXPECT_LT(backends::relative_distance(tensor, full.parameters.at(name)), 0.02) << name;
        }
    }
    EXPECT_EQ(Pipeline::load(folder / "int8")->engine().precision, Engine::Precision::fp32);
}

TEST(Quantise, of_a_teacher_is_calibrated_along_its_own_trajectories) {
    models::Model model = models::init_model(unet_config(), 1);
    model.parameters = backends::filled(networks::trace(model.network).parameters);
    const auto uses = trajectory_calibration_set(model, {{0, 1, 2}}, 2, 3, 0);
    EXPECT_EQ(uses.size(), 5U);
    EXPECT_FLOAT_EQ(uses.front().sigma[0].item<float>(), 80);
    EXPECT_LT(uses.back().sigma[0].item<float>(), 10);
    EXPECT_NO_THROW(quantise(model, {{0, 1, 2}}, everything));
    EXPECT_TRUE(model.quantised());
}

TEST(Quantise, moves_biases_so_that_rounding_does_not_move_the_mean) {
    models::Model model = student();
    const models::Model full = model;
    quantise(model, {{0, 2}}, everything);
    // Compares the calibration's samples, drawn by an engine whose inputs are rounded, with the
    // exact ones.
    const core::TestFolder folder;
    models::write_model(folder / "full", full);
    models::write_model(folder / "int8", model);
    models::Model uncorrected = model;
    for (const auto& [name, tensor] : full.parameters.tensors()) {
        if (name.ends_with(".bias")) uncorrected.parameters.set(name, tensor);
    }
    models::write_model(folder / "uncorrected", uncorrected);
    const auto mean = [&](const char* which, Engine::Precision precision) {
        const auto generator =
            Pipeline::load(folder / which, {.engine = {Engine::Kind::openvino, precision}});
        return generator
            ->draw(class_requests(64, 9, std::vector<std::int64_t>{0, 2}, generator->prior()))
            .mean({0, 2, 3});
    };
    const Tensor exact = mean("full", Engine::Precision::fp32);
    EXPECT_LT(backends::relative_distance(mean("int8", Engine::Precision::int8), exact),
              backends::relative_distance(mean("uncorrected", Engine::Precision::int8), exact));
}

TEST(Quantise, keeps_a_layer_that_only_zeros_reach) {
    models::Model model = student();
    model.parameters.set("model.enc.8x8_block0.norm0.weight", at::zeros({32}));
    model.parameters.set("model.enc.8x8_block0.norm0.bias", at::zeros({32}));
    EXPECT_NO_THROW(quantise(model, {{0, 2}}, everything));
    EXPECT_FLOAT_EQ(backends::input_range(model.parameters, "model.enc.8x8_block0.conv0"), 1);
}

TEST(Quantise, is_rejected_twice_and_without_convolutions) {
    models::Model model = student();
    quantise(model, {{0, 2}}, everything);
    backends::expect_contains(backends::error_of([&] { quantise(model, {{0, 2}}, everything); }),
                              "quantised already");
    models::Model points = models::tiny_model(models::tiny_config(), 1);
    backends::expect_contains(backends::error_of([&] { quantise(points, {{0}}, everything); }),
                              "mlp");
}

TEST(Quantise, int8_weights_that_the_config_does_not_mention_are_rejected) {
    const core::TestFolder folder;
    models::Model model = student();
    quantise(model, {{0, 2}}, everything);
    model.quantisation.reset();
    models::write_model(folder / "m", model);
    backends::expect_contains(backends::error_of([&] { models::read_model(folder / "m"); }),
                              "quantisation");
}

TEST(Engine, int8_is_for_quantised_models_and_openvino) {
    const models::Model full = student();
    EXPECT_THROW(engine_for({Engine::Kind::openvino, Engine::Precision::int8}, full),
                 core::UsageError);
    EXPECT_THROW(engine_of("torch", "int8", "cpu"), core::UsageError);
    EXPECT_EQ(engine_for({Engine::Kind::openvino, Engine::Precision::automatic}, full).precision,
              Engine::Precision::fp32);
}

}  // namespace
}  // namespace atelier::inference
