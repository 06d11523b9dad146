#include "atelier/inference/diffusers_model.h"
#include "atelier/inference/diffusers_sampler.h"
#include "atelier/inference/pipeline.h"
#include "models/diffusers_fixtures.h"

#include <algorithm>

/// Networks of diffusers' pipelines beyond Stable Diffusion 1 and 2 against diffusers and
/// transformers (scripts/make_diffusers_golden.py).
namespace atelier::inference {

namespace {

using backends::error_of;
using backends::expect_contains;
using models::SmallDiffusers;

Tensor rows_of_prompts(const Tensor& of_all) {
    return of_all.index({at::tensor({0, 2}, at::kLong)});
}

class DiffusersFamilies : public testing::TestWithParam<const char*> {
protected:
    static Engine engine() { return engine_of(GetParam(), "fp32", "cpu"); }

    static void expect_near(const Tensor& actual, const Tensor& expected, const char* what) {
        ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
        for (std::int64_t i = 0; i < actual.size(0); ++i)
            EXPECT_LT(backends::relative_distance(actual[i], expected[i]), 5e-5)
                << what << " " << i;
    }

    /// Evaluates a network alone on the inputs that are in its answers.
    static NamedTensors evaluate(const SmallDiffusers& model, const char* function) {
        return NamedNetwork(models::DiffusersPart(model.path()), function, engine())
            .run(model.answers().tensors());
    }
};

}  // namespace

TEST_P(DiffusersFamilies, sdxl_reads_prompts_with_both_towers_and_predicts) {
    const SmallDiffusers folder("sdxl");
    const auto answers = folder.answers();
    DiffusersModel model(folder.path(), engine());
    const auto text = model.read(answers.at("input_ids"), answers.at("input_ids_2"));
    expect_near(text.hidden, answers.at("hidden"), "hidden");
    expect_near(text.pooled, answers.at("pooled"), "pooled");
    const auto encoded = model.encode(
        std::vector<std::string>{"a photo of a cat", "", "the dog's <|endoftext|> house!",
                                 std::string("word ") + std::string(400, 'x')});
    expect_near(encoded.hidden.narrow(0, 0, 3), answers.at("hidden").narrow(0, 0, 3), "encoded");
    NamedTensors inputs = answers.tensors();
    inputs["hidden"] = rows_of_prompts(answers.at("hidden"));
    inputs["pooled"] = rows_of_prompts(answers.at("pooled"));
    expect_near(model.predict(inputs), answers.at("eps"), "eps");
    inputs.erase("time_ids");
    expect_contains(error_of([&] { model.predict(inputs); }), "time_ids [N,6]");
}

TEST_P(DiffusersFamilies, stable_diffusion_3_pads_its_texts_and_predicts_velocities) {
    const SmallDiffusers folder("sd3");
    const auto answers = folder.answers();
    DiffusersModel model(folder.path(), engine());
    const auto text = model.read(answers.at("input_ids"), answers.at("input_ids_2"));
    expect_near(text.hidden, answers.at("hidden"), "hidden");
    expect_near(text.pooled, answers.at("pooled"), "pooled");
    NamedTensors inputs = answers.tensors();
    inputs["hidden"] = rows_of_prompts(answers.at("hidden"));
    inputs["pooled"] = rows_of_prompts(answers.at("pooled"));
    expect_near(model.predict(inputs), answers.at("velocity"), "velocity");
    inputs["x"] = at::zeros({2, 4, 20, 4});
    expect_contains(error_of([&] { model.predict(inputs); }), "table of positions");
    const SmallDiffusers plain("sd3_plain");
    expect_near(evaluate(plain, "denoise").at("velocity"), plain.answers().at("velocity"), "plain");
}

TEST_P(DiffusersFamilies, dit_predicts_the_noise_of_classes_and_of_none) {
    for (const char* name : {"dit", "dit_other"}) {
        const SmallDiffusers folder(name);
        const auto answers = folder.answers();
        const bool whole = models::is_diffusers_directory(folder.path());
        const models::DiffusersPart part =
            whole ? models::DiffusersDirectory(folder.path()).denoiser()
                  : models::DiffusersPart(folder.path());
        NamedNetwork network(part, "denoise", engine());
        NamedTensors inputs = answers.tensors();
        expect_near(network.run(inputs).at("eps"), answers.at("eps"), name);
        inputs["labels"] = at::full({3}, 6, at::kLong);
        expect_contains(error_of([&] { network.run(inputs); }), "\"labels\" contains values");
        inputs["labels"] = answers.at("labels").to(at::kFloat);
        expect_contains(error_of([&] { network.run(inputs); }), "must be integers");
    }
}

TEST_P(DiffusersFamilies, tiny_autoencoders_decode_and_encode_sizes_of_any_kind) {
    for (const char* name : {"taesd", "taesd_silu"}) {
        const SmallDiffusers folder(name);
        expect_near(evaluate(folder, "decode").at("image"), folder.answers().at("decoded"), name);
        expect_near(evaluate(folder, "encode").at("latent"), folder.answers().at("latent"), name);
    }
}

INSTANTIATE_TEST_SUITE_P(Engines, DiffusersFamilies, testing::Values("torch", "openvino"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TinyAutoencoder, the_native_engine_computes_it_and_names_what_it_lacks_for_others) {
    const SmallDiffusers folder("taesd");
    const Engine native = engine_of("native", "fp32", "cpu");
    const auto answers = folder.answers();
    NamedNetwork decoder(models::DiffusersPart(folder.path()), "decode", native);
    EXPECT_LT(backends::relative_distance(decoder.run(answers.tensors()).at("image"),
                                          answers.at("decoded")),
              1e-5);
    const SmallDiffusers transformer("dit_other");
    NamedNetwork other(models::DiffusersPart(transformer.path()), "denoise", native);
    expect_contains(error_of([&] { other.run(transformer.answers().tensors()); }),
                    "the native engine lacks tokens");
}

TEST(EulerSampling, steps_and_samples_are_those_of_diffusers) {
    const SmallDiffusers folder("sdxl");
    const auto answers = folder.answers();
    DiffusersModel model(folder.path(), engine_of("torch", "fp32", "cpu"));
    const diffusion::Predictor predict = [&](const Tensor& x, double t) {
        return model.predict({{"x", x},
                              {"t", at::full({1}, t, at::kFloat)},
                              {"hidden", answers.at("hidden").narrow(0, 0, 1)},
                              {"pooled", answers.at("pooled").narrow(0, 0, 1)},
                              {"time_ids", answers.at("time_ids").narrow(0, 0, 1)}});
    };
    const nlohmann::json schedulers = folder.about().at("schedulers");
    EXPECT_EQ(schedulers.size(), 4U);
    for (const auto& [name, entry] : schedulers.items()) {
        const auto schedule =
            diffusion::DdpmSchedule::of(core::JsonObject(entry.at("config"), name));
        const auto count = entry.at("count").get<std::int64_t>();
        const Tensor times =
            at::tensor(euler_levels(schedule, count).times, at::kDouble).to(at::kFloat);
        EXPECT_TRUE(times.equal(answers.at("times " + name).to(at::kFloat))) << name;
        EXPECT_LT(
            backends::relative_distance(sample_euler(schedule, predict, answers.at("noise"), count),
                                        answers.at("sampled " + name)),
            1e-4)
            << name;
    }
}

TEST(FlowSampling, steps_and_samples_are_those_of_diffusers) {
    const SmallDiffusers folder("sd3");
    const auto answers = folder.answers();
    DiffusersModel model(folder.path(), engine_of("torch", "fp32", "cpu"));
    const diffusion::Predictor predict = [&](const Tensor& x, double t) {
        return model.predict({{"x", x},
                              {"t", at::full({1}, t, at::kFloat)},
                              {"hidden", answers.at("hidden").narrow(0, 0, 1)},
                              {"pooled", answers.at("pooled").narrow(0, 0, 1)}});
    };
    const nlohmann::json config = model.directory().scheduler_config();
    const auto schedule = diffusion::FlowSchedule::of(core::JsonObject(config, "scheduler"));
    for (const std::int64_t count : {1, 4}) {
        const std::string name = std::to_string(count);
        EXPECT_LT(backends::relative_distance(
                      at::tensor(euler_levels(schedule, count).times, at::kDouble).to(at::kFloat),
                      answers.at("times " + name)),
                  1e-6);
        EXPECT_LT(
            backends::relative_distance(sample_euler(schedule, predict, answers.at("noise"), count),
                                        answers.at("sampled " + name)),
            1e-4);
    }
}

namespace {

/// Every way in which other projects name the deltas of a layer.
struct Spelling {
    const char* name;
    std::function<std::string(const std::string& layer, bool down)> key;
    bool alpha;
};

std::string flat(std::string layer) {
    std::ranges::replace(layer, '.', '_');
    return layer;
}

const std::vector<Spelling>& spellings() {
    static const std::vector<Spelling> all{
        {"PEFT",
         [](const std::string& layer, bool down) {
             return "unet." + layer + (down ? ".lora_A.weight" : ".lora_B.weight");
         },
         false},
        {"diffusers",
         [](const std::string& layer, bool down) {
             return "unet." + layer + (down ? ".lora.down.weight" : ".lora.up.weight");
         },
         false},
        {"kohya",
         [](const std::string& layer, bool down) {
             return "lora_unet_" + flat(layer) + (down ? ".lora_down.weight" : ".lora_up.weight");
         },
         true}};
    return all;
}

struct ChangedLayer {
    std::string name;
    Tensor down, up;
};

/// Deltas of rank 2 of some layers of SDXL's small U-Net: linear ones, and convolutions.
std::vector<ChangedLayer> changed_layers() {
    const std::vector<std::pair<std::string, graph::Shape>> layers{
        {"down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k", {16, 40}},
        {"down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_out.0", {16, 16}},
        {"mid_block.attentions.0.proj_in", {16, 16}},
        {"mid_block.resnets.1.conv1", {16, 16, 3, 3}},
        {"up_blocks.0.upsamplers.0.conv", {16, 16, 3, 3}}};
    std::vector<ChangedLayer> changed;
    for (const auto& [name, weight] : layers) {
        graph::Shape down = weight, up(weight.size(), 1);
        down[0] = 2, up[0] = weight[0], up[1] = 2;
        changed.push_back({name, diffusion::golden_weights("down " + name, down),
                           diffusion::golden_weights("up " + name, up)});
    }
    return changed;
}

}  // namespace

TEST(LowRankFiles, change_what_merged_weights_change_in_every_spelling) {
    const SmallDiffusers folder("sdxl"), merged("sdxl");
    const Engine engine = engine_of("torch", "fp32", "cpu");
    constexpr double alpha = 3, scale = 0.5;
    models::SmallStableDiffusion::change(
        merged.path() / "unet/diffusion_pytorch_model.safetensors", [&](auto& tensors) {
            for (const ChangedLayer& layer : changed_layers()) {
                Tensor& weight = tensors[layer.name + ".weight"];
                weight =
                    weight +
                    scale * alpha / 2 *
                        at::matmul(layer.up.flatten(1), layer.down.flatten(1)).view(weight.sizes());
            }
        });
    NamedTensors inputs = folder.answers().tensors();
    inputs["hidden"] = rows_of_prompts(inputs["hidden"]);
    inputs["pooled"] = rows_of_prompts(inputs["pooled"]);
    const Tensor expected = DiffusersModel(merged.path(), engine).predict(inputs);
    EXPECT_GT(backends::relative_distance(expected, folder.answers().at("eps")), 0.01);
    const core::TestFolder files;
    for (const Spelling& spelling : spellings()) {
        backends::Parameters deltas;
        for (const ChangedLayer& layer : changed_layers()) {
            deltas.set(spelling.key(layer.name, true), layer.down.to(at::kFloat));
            deltas.set(spelling.key(layer.name, false),
                       spelling.alpha ? layer.up : layer.up * (alpha / 2));
            if (spelling.alpha)
                deltas.set("lora_unet_" + flat(layer.name) + ".alpha", at::scalar_tensor(alpha));
        }
        const auto file = files / (std::string(spelling.name) + ".safetensors");
        backends::write_parameters(file, deltas);
        const std::vector<models::LowRankFile> once{
            models::LowRankFile::of(file.string() + ":0.5")};
        EXPECT_LT(backends::relative_distance(
                      DiffusersModel(folder.path(), engine, once).predict(inputs), expected),
                  1e-5)
            << spelling.name;
        const std::vector<models::LowRankFile> twice{{file, 0.75}, {file, -0.25}};
        EXPECT_LT(backends::relative_distance(
                      DiffusersModel(folder.path(), engine, twice).predict(inputs), expected),
                  1e-5)
            << "two files add up: " << spelling.name;
    }
}

TEST(Pipeline, draws_from_every_family_with_the_sampler_that_its_scheduler_names) {
    const auto image = [](const SmallDiffusers& folder, const PipelineOptions& options,
                          const Condition& condition) {
        return Pipeline::load(folder.path(), options)
            ->sample(std::vector<SampleRequest>{{3, 0, condition}})
            .to(at::kFloat);
    };
    const Engine engine = engine_of("torch", "fp32", "cpu");
    const SmallDiffusers sdxl("sdxl"), sd3("sd3"), dit("dit");
    EXPECT_EQ(name_of(Pipeline::load(sdxl.path(), {.engine = engine})->sampling()), "euler");
    EXPECT_EQ(name_of(Pipeline::load(sd3.path(), {.engine = engine})->sampling()), "euler");
    EXPECT_EQ(name_of(Pipeline::load(dit.path(), {.engine = engine})->sampling()), "ddim");
    for (const SmallDiffusers* folder : {&sdxl, &sd3}) {
        PipelineOptions options{.engine = engine, .steps = 2};
        const std::string cat = "a photo of a cat";
        const Tensor first = image(*folder, options, cat);
        EXPECT_EQ(first.sizes().vec(), (graph::Shape{1, 16, 16, 3}));
        EXPECT_TRUE(image(*folder, options, cat).equal(first));
        EXPECT_FALSE(image(*folder, options, std::string("a dog")).equal(first));
        options.guidance = 1;
        EXPECT_FALSE(image(*folder, options, cat).equal(first));
        options.height = 24;
        EXPECT_EQ(image(*folder, options, cat).sizes().vec(), (graph::Shape{1, 24, 16, 3}));
    }
    PipelineOptions options{.engine = engine, .steps = 2};
    const Tensor of_class = image(dit, options, ClassId{3});
    EXPECT_TRUE(image(dit, options, ClassId{3}).equal(of_class));
    EXPECT_FALSE(image(dit, options, ClassId{4}).equal(of_class));
    expect_contains(error_of([&] { image(dit, options, ClassId{5}); }), "out of range");
    EXPECT_EQ(Pipeline::load(dit.path(), options)->spec().class_names.at(3), "class 3");
    options.height = 16;
    expect_contains(error_of([&] { image(dit, options, ClassId{3}); }), "its own size");
    expect_contains(
        error_of([&] { image(sd3, {.engine = engine, .sampler = "ddim"}, std::string("a")); }),
        "known is euler");
}

}  // namespace atelier::inference
