#include "atelier/inference/diffusers_model.h"
#include "atelier/inference/pipeline.h"

#include "models/diffusers_fixtures.h"

/// Stable Diffusion's components against diffusers and transformers
/// (scripts/make_stable_diffusion_golden.py).
namespace atelier::inference {

namespace {

using models::SmallStableDiffusion;

NamedTensors inputs(const Tensor& x, const Tensor& t, const Tensor& hidden) {
    return {{"x", x}, {"t", t}, {"hidden", hidden}};
}

class TextToImage : public testing::TestWithParam<std::tuple<int, const char*>> {
protected:
    TextToImage()
        : folder_(std::get<0>(GetParam())),
          answers_(folder_.answers()),
          model_(folder_.path(), engine("fp32")) {}

    static Engine engine(const char* precision) {
        return engine_of(std::get<1>(GetParam()), precision, "cpu");
    }

    void expect_near(const Tensor& actual, const char* name, double tolerance = 1e-4) const {
        EXPECT_EQ(actual.scalar_type(), at::kFloat);
        for (std::int64_t i = 0; i < actual.size(0); ++i)
            EXPECT_LT(backends::relative_distance(actual[i], answers_.at(name)[i]), tolerance)
                << name << " " << i;
    }

    SmallStableDiffusion folder_;
    backends::Parameters answers_;
    DiffusersModel model_;
};

}  // namespace

TEST_P(TextToImage, reads_prompts_as_transformers_does) {
    const auto prompts = folder_.about().at("prompts").get<std::vector<std::string>>();
    EXPECT_TRUE(model_.tokens(prompts).equal(answers_.at("input_ids")));
    const auto text = model_.read(answers_.at("input_ids"));
    expect_near(text.hidden, "hidden");
    expect_near(text.pooled, "pooled");
}

TEST_P(TextToImage, predicts_as_diffusers_does) {
    const Tensor hidden = answers_.at("hidden").index({at::tensor({0, 2}, at::kLong)});
    expect_near(model_.predict(inputs(answers_.at("x"), answers_.at("t"), hidden)), "eps");
    DiffusersModel rough(folder_.path(), engine("bf16"));
    expect_near(rough.predict(inputs(answers_.at("x"), answers_.at("t"), hidden)), "eps", 0.1);
}

TEST_P(TextToImage, encodes_and_decodes_as_diffusers_does) {
    const auto moments = model_.autoencoder().encode(answers_.at("image"));
    expect_near(moments.mean, "mean");
    expect_near(moments.logvar, "logvar");
    expect_near(model_.autoencoder().decode(answers_.at("latent")), "decoded");
}

TEST_P(TextToImage, inputs_that_do_not_fit_are_errors) {
    const Tensor hidden = answers_.at("hidden").narrow(0, 0, 1), t = at::ones({1});
    const auto rejects = [](const std::function<void()>& action) {
        return !backends::error_of(action).empty();
    };
    EXPECT_TRUE(rejects([&] { model_.predict(inputs(at::zeros({1, 3, 8, 8}), t, hidden)); }));
    EXPECT_TRUE(rejects([&] { model_.predict(inputs(at::zeros({1, 4, 8, 7}), t, hidden)); }));
    EXPECT_TRUE(rejects([&] { model_.predict(inputs(at::zeros({2, 4, 8, 8}), t, hidden)); }));
    EXPECT_TRUE(rejects(
        [&] { model_.predict(inputs(at::zeros({1, 4, 8, 8}), t, hidden.narrow(2, 0, 5))); }));
    EXPECT_TRUE(rejects([&] { model_.read(at::full({1, 77}, 100'000, at::kLong)); }));
    EXPECT_TRUE(rejects([&] { model_.read(at::zeros({1, 78}, at::kLong)); }));
    EXPECT_TRUE(rejects([&] { model_.autoencoder().decode(at::zeros({4, 8, 8})); }));
}

TEST_P(TextToImage, an_image_follows_from_prompt_seed_and_number_alone) {
    PipelineOptions how{.engine = engine("fp32"), .steps = 3};
    const auto image = [&](const char* prompt, std::uint64_t seed, std::int64_t number) {
        return Pipeline::load(folder_.path(), how)
            ->sample(std::vector<SampleRequest>{{seed, number, std::string(prompt)}})
            .to(at::kFloat);
    };
    const auto differ = [&](const Tensor& a, const Tensor& b) { return !a.equal(b); };
    const Tensor first = image("a photo of a cat", 1, 0);
    EXPECT_EQ(first.sizes().vec(), (graph::Shape{1, 16, 16, 3}));
    EXPECT_TRUE(image("a photo of a cat", 1, 0).equal(first));
    EXPECT_TRUE(differ(image("a photo of a dog", 1, 0), first));
    EXPECT_TRUE(differ(image("a photo of a cat", 2, 0), first));
    EXPECT_TRUE(differ(image("a photo of a cat", 1, 1), first));
    how.negative = "blurry";
    EXPECT_TRUE(differ(image("a photo of a cat", 1, 0), first));
    how.width = 31;
    EXPECT_FALSE(backends::error_of([&] { image("a photo of a cat", 1, 0); }).empty());
}

INSTANTIATE_TEST_SUITE_P(Forms, TextToImage,
                         testing::Combine(testing::Values(1, 2),
                                          testing::Values("torch", "openvino")),
                         [](const auto& info) {
                             return fmt::format("form_{}_on_{}", std::get<0>(info.param),
                                                std::get<1>(info.param));
                         });

TEST(TextSampling, steps_and_samples_are_those_of_diffusers) {
    for (const int form : {1, 2}) {
        const SmallStableDiffusion folder(form);
        const backends::Parameters answers = folder.answers();
        DiffusersModel model(folder.path(), engine_of("torch", "fp32", "cpu"));
        const Tensor hidden = answers.at("hidden").narrow(0, 0, 1);
        const diffusion::Predictor predict = [&](const Tensor& x, double t) {
            return model.predict(inputs(x, at::full({1}, t, at::kFloat), hidden));
        };
        const nlohmann::json schedulers = folder.about().at("schedulers");
        EXPECT_EQ(schedulers.size(), 6U);
        for (const auto& [name, config] : schedulers.items()) {
            const auto schedule = diffusion::DdpmSchedule::of(core::JsonObject(config, name));
            const bool ddim = name.starts_with("ddim");
            const auto times = ddim ? ddim_times(schedule, 7) : dpm_times(schedule, 7);
            EXPECT_TRUE(
                at::tensor(times, at::kLong).equal(answers.at("times " + name).to(at::kLong)))
                << name;
            const Tensor& noise = answers.at("noise");
            const Tensor sample = ddim ? sample_ddim(schedule, predict, noise, 7)
                                       : sample_dpm(schedule, predict, noise, 7);
            EXPECT_LT(backends::relative_distance(sample, answers.at("sampled " + name)), 1e-4)
                << name << " form " << form;
        }
    }
}

}  // namespace atelier::inference
