#include "atelier/models/model_directory.h"
#include "atelier/pipeline/run_context.h"

#include <gtest/gtest.h>

namespace atelier::pipeline {

namespace {

data::SampleSpec two_points() {
    data::SampleSpec spec;
    spec.kind = data::SampleSpec::Kind::points;
    spec.shape = {2};
    spec.offset = {0, 0};
    return spec;
}

}  // namespace

TEST(TeacherNoise, is_trained_as_it_is_written) {
    RunConfig config;
    config.network.architecture = "mlp";
    config.teacher.sigma_data = 0.7;
    config.teacher.sigma_min = 0.01;
    config.teacher.sigma_max = 20;
    config.teacher.p_mean = 0.3;
    config.teacher.p_std = 0.9;
    config.teacher.levels_given = true;
    const nlohmann::json written = teacher_json(config, two_points(), 4);
    EXPECT_EQ(written.at("sigma_max"), 20);
    EXPECT_FALSE(written.contains("preconditioning"));
    const models::Model model = models::init_model(written, 0);
    EXPECT_EQ(model.noise, diffusion::NoiseSchedule::edm(0.7, 0.01, 20));
    diffusion::NoiseSchedule trained = training_noise(model, config);
    EXPECT_EQ(trained.p_mean, 0.3);
    EXPECT_EQ(trained.p_std, 0.9);
    trained.p_mean = model.noise.p_mean, trained.p_std = model.noise.p_std;
    EXPECT_EQ(trained, model.noise);
}

TEST(TeacherNoise, of_a_flow_has_its_own_levels_unless_they_are_set) {
    const std::string toy = std::string(ATELIER_SOURCE_DIR) + "/configs/toy2d.toml";
    const auto noise_of = [&](const std::vector<std::string>& overrides) {
        const RunConfig config = load_config(toy, overrides).config;
        const models::Model model = models::init_model(teacher_json(config, two_points(), 4), 0);
        return training_noise(model, config);
    };
    const diffusion::NoiseSchedule own(diffusion::FlowNoise{.timesteps = 10, .shift = 3}),
        flow = noise_of({"teacher.noise=flow", "teacher.flow_shift=3"});
    EXPECT_EQ(flow, own);
    EXPECT_EQ(flow.p_mean, 0);
    EXPECT_NEAR(flow.sigma_max, 3 * 999, 1e-6);
    const diffusion::NoiseSchedule set =
        noise_of({"teacher.noise=flow", "teacher.sigma_max=50", "teacher.p_std=2"});
    EXPECT_EQ(set.sigma_max, 50);
    EXPECT_EQ(set.p_std, 2);
    EXPECT_EQ(set.p_mean, 0);
    EXPECT_EQ(noise_of({}), diffusion::NoiseSchedule());
    // A teacher that exists brings its own, where the config sets none.
    const models::Model other = models::init_model(
        teacher_json(load_config(toy, {"teacher.noise=flow"}).config, two_points(), 4), 0);
    EXPECT_EQ(training_noise(other, load_config(toy, {"teacher.path=x"}).config).p_mean, 0);
}

TEST(TeacherNoise, of_stable_diffusions_network_is_that_of_its_scheduler) {
    RunConfig config;
    config.network.architecture = "sd_unet";
    config.network.model_channels = 32;
    config.network.channel_mult = {1, 2};
    data::SampleSpec latents;
    latents.kind = data::SampleSpec::Kind::latent;
    latents.shape = {4, 8, 8};
    const models::ModelCard card = models::card_of(teacher_json(config, latents, 16), "teacher");
    EXPECT_NEAR(card.noise.sigma_max, 14.6146, 1e-3);
    EXPECT_TRUE(std::holds_alternative<diffusion::DdpmNoise>(card.noise.kind));
}

}  // namespace atelier::pipeline
