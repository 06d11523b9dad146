#include "atelier/inference/engine.h"

#include <ATen/Parallel.h>

#include "atelier/inference/openvino_network.h"

#include "backends/tensors.h"
#include "models/model_fixtures.h"

namespace atelier::inference {
namespace {

using nlohmann::json;

/// A model without zero-initialised layers, so that every layer affects the output.
models::Model model_of(const json& config) {
    models::Model model = models::init_model(config, 1);
    model.parameters = backends::filled(networks::trace(model.network).parameters);
    return model;
}

json unet(std::int64_t resolution, std::int64_t patch, std::int64_t channels,
          std::int64_t classes) {
    return {{"architecture", "adm_unet"},
            {"resolution", resolution},
            {"channels", 3},
            {"classes", classes},
            {"model_channels", channels},
            {"channel_mult", {1, 2}},
            {"num_blocks", 1},
            {"attention_resolutions", {resolution / patch / 2}},
            {"patch_size", patch}};
}

json song(const char* preconditioning, const json& kind) {
    json config{{"architecture", "song_unet"},
                {"resolution", 16},
                {"channels", 3},
                {"classes", 3},
                {"augment_dim", 9},
                {"model_channels", 32},
                {"channel_mult", {1, 2}},
                {"num_blocks", 1},
                {"attention_resolutions", {8}},
                {"preconditioning", preconditioning}};
    config.update(kind);
    return config;
}

const json ncsnpp{{"embedding_type", "fourier"},
                  {"channel_mult_noise", 2},
                  {"encoder_type", "residual"},
                  {"decoder_type", "skip"},
                  {"resample_filter", {1, 3, 3, 1}}};

struct Case {
    std::string name;
    json config;
};

class Engines : public ::testing::TestWithParam<Case> {
protected:
    models::Model model = model_of(GetParam().config);
    std::unique_ptr<diffusion::Denoiser> torch = open_denoiser(model, {});

    /// The largest relative distance of an engine's outputs from LibTorch's in float32, over noise
    /// levels and batch sizes.
    double farthest(const Engine& engine) {
        const auto denoiser = open_denoiser(model, engine);
        double distance = 0;
        for (const double sigma : {0.002, 0.5, 80.0}) {
            for (const std::int64_t batch : {1, 3, 1}) {
                graph::Shape shape = model.network.data_shape;
                shape.insert(shape.begin(), batch);
                const Tensor x = backends::normal(shape, "x") * std::max(sigma, 0.5),
                             levels = at::full({batch}, sigma);
                std::vector<std::int64_t> classes;
                for (std::int64_t i = 0; i < batch; ++i)
                    classes.push_back(model.network.label_dim > 0 ? i % model.network.label_dim
                                                                  : 0);
                const auto condition = diffusion::one_hot(classes, model.network.label_dim);
                distance = std::max(
                    distance, backends::relative_distance(denoiser->denoise(x, levels, condition),
                                                          torch->denoise(x, levels, condition)));
            }
        }
        return distance;
    }
};

TEST_P(Engines, give_the_same_values_in_float32) {
    EXPECT_LT(farthest({Engine::Kind::openvino, Engine::Precision::fp32}), 1e-4);
    EXPECT_LT(farthest({Engine::Kind::native, Engine::Precision::fp32}), 1e-5);
}

TEST_P(Engines, stay_near_in_bfloat16) {
    EXPECT_LT(farthest({Engine::Kind::openvino, Engine::Precision::bf16}), 3e-2);
    EXPECT_LT(farthest({Engine::Kind::torch, Engine::Precision::bf16}), 3e-2);
}

TEST_P(Engines, sample_in_one_step_as_they_denoise_at_the_highest_level_for_any_opened_classes) {
    const std::int64_t known = model.network.label_dim;
    std::vector<std::int64_t> classes;
    for (std::int64_t i = 0; i < 7; ++i) classes.push_back(known > 0 ? (i * 2 + 1) % known : 0);
    graph::Shape shape = model.network.data_shape;
    shape.insert(shape.begin(), 7);
    const Tensor z = backends::normal(shape, "z"), levels = at::full({7}, model.noise.sigma_max);
    const Tensor expected =
        torch->denoise(z * model.noise.sigma_max, levels, diffusion::one_hot(classes, known));
    for (const auto kind : {Engine::Kind::torch, Engine::Kind::openvino, Engine::Kind::native}) {
        for (const bool all : {true, false}) {
            const auto sampler =
                open_one_step(model, {kind, Engine::Precision::fp32},
                              all || known == 0 ? std::vector<std::int64_t>{} : classes);
            EXPECT_LT(backends::relative_distance(sampler->draw(z, classes), expected), 1e-4)
                << name_of(kind);
        }
    }
    const auto approximate =
        open_one_step(model, {Engine::Kind::openvino, Engine::Precision::bf16});
    EXPECT_LT(backends::relative_distance(approximate->draw(z, classes), expected), 3e-2);
}

/// Few samples are computed by all threads together, many are distributed over the threads.
TEST_P(Engines, native_results_depend_on_neither_the_batch_nor_the_threads) {
    const at::NoGradGuard no_gradients;
    const std::int64_t known = model.network.label_dim, count = 70;
    graph::Shape shape = model.network.data_shape;
    shape.insert(shape.begin(), count);
    const Tensor z = backends::normal(shape, "z");
    std::vector<std::int64_t> classes;
    for (std::int64_t i = 0; i < count; ++i) classes.push_back(known > 0 ? i % known : 0);
    const auto sampler = open_one_step(model, {Engine::Kind::native, Engine::Precision::fp32});
    const Tensor expected = sampler->draw(z, classes);
    const int before = at::get_num_threads();
    for (const int threads : {1, 2, 3}) {
        at::set_num_threads(threads);
        for (const std::int64_t batch : {1, 2, 5, 70}) {
            std::vector<Tensor> parts;
            for (std::int64_t first = 0; first < count; first += batch) {
                parts.push_back(
                    sampler->draw(z.narrow(0, first, batch),
                                  std::span(classes).subspan(static_cast<std::size_t>(first),
                                                             static_cast<std::size_t>(batch))));
            }
            EXPECT_TRUE(at::equal(at::cat(parts), expected))
                << threads << " threads, batch " << batch;
        }
    }
    at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Models, Engines,
                         ::testing::Values(Case{"unet", unet(16, 1, 32, 0)},
                                           Case{"patched_unet_with_classes", unet(16, 2, 64, 5)},
                                           Case{"ddpmpp", song("vp", json::object())},
                                           Case{"ncsnpp", song("ve", ncsnpp)},
                                           Case{"mlp",
                                                {{"architecture", "mlp"},
                                                 {"dimensions", 2},
                                                 {"hidden", 16},
                                                 {"blocks", 3},
                                                 {"classes", 4}}}),
                         [](const auto& info) { return info.param.name; });

TEST(Engine, auto_is_native_on_the_cpu_where_float32_is_computed_and_openvino_elsewhere) {
    EXPECT_EQ(engine_of("torch", "bf16", "cpu").kind, Engine::Kind::torch);
    const models::Model unconditional = model_of(unet(16, 1, 32, 0));
    const auto chosen = [&](const char* precision) {
        return engine_for(engine_of("auto", precision, "cpu"), unconditional);
    };
    EXPECT_EQ(chosen("fp32").kind, Engine::Kind::native);
    EXPECT_EQ(chosen("auto").kind, Engine::Kind::native);
    EXPECT_EQ(chosen("auto").precision, Engine::Precision::fp32);
    EXPECT_EQ(chosen("bf16").kind,
              cpu_computes_in_bfloat16() ? Engine::Kind::openvino : Engine::Kind::native);
    EXPECT_EQ(engine_for(engine_of("openvino", "fp32", "cpu"), unconditional).kind,
              Engine::Kind::openvino);
}

TEST(Engine, transformers_are_computed_by_openvino_and_refused_by_the_native_engine) {
    const models::Model model = model_of({{"architecture", "dit"},
                                          {"channels", 3},
                                          {"resolution", 8},
                                          {"classes", 4},
                                          {"hidden", 32},
                                          {"blocks", 2},
                                          {"patch_size", 2}});
    const std::vector<std::int64_t> classes{0, 3, 1};
    const Tensor z = backends::normal({3, 3, 8, 8}, "z");
    const auto drawn = [&](const Engine& engine) {
        return open_one_step(model, engine)->draw(z, classes);
    };
    const Tensor expected = drawn({});
    EXPECT_LT(backends::relative_distance(drawn({Engine::Kind::openvino, Engine::Precision::fp32}),
                                          expected),
              1e-4);
    EXPECT_EQ(engine_for(engine_of("auto", "fp32", "cpu"), model).kind, Engine::Kind::openvino);
    core::expect_contains(core::error_of([&] { drawn({Engine::Kind::native}); }), "dit (tokens)");
}

TEST(Engine, unknown_names_are_rejected_with_a_message) {
    const auto error_of_engine = [](const char* kind, const char* precision, const char* device) {
        return core::error_of([&] { engine_of(kind, precision, device); });
    };
    core::expect_contains(error_of_engine("onnx", "fp32", "cpu"),
                          "known are auto, native, openvino and torch");
    core::expect_contains(error_of_engine("torch", "fp16", "cpu"),
                          "known are auto, fp32, bf16 and int8");
    core::expect_contains(error_of_engine("torch", "fp32", "gpu"), "known are cpu, cuda");
    core::expect_contains(error_of_engine("openvino", "fp32", "cuda"), "use --engine torch");
    core::expect_contains(error_of_engine("native", "bf16", "cpu"),
                          "use --engine openvino or torch");
    core::expect_contains(error_of_engine("native", "int8", "cpu"), "int8 is computed by OpenVINO");
}

}  // namespace
}  // namespace atelier::inference
