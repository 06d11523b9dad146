#include "atelier/inference/pipeline.h"

#include "models/prompt_fixtures.h"

namespace atelier::inference {
namespace {

namespace fs = std::filesystem;
using core::error_of;
using core::expect_contains;

const std::vector<std::string> prompts{
    "a white shoe", "two black bags", "a shoe", "bags, bags, bags", "", "two shoes"};

std::vector<SampleRequest> all_of(std::uint64_t seed) {
    return prompt_requests(static_cast<std::int64_t>(prompts.size()), seed, prompts);
}

std::vector<SampleRequest> only(std::uint64_t seed, std::size_t i) {
    return {{seed, static_cast<std::int64_t>(i), prompts[i]}};
}

class Prompts : public testing::Test {
protected:
    Prompts()
        : ensemble_(models::write_prompt_ensemble_of_two(folder_)), teacher_(folder_ / "teacher") {
        models::write_tiny_encoder(teacher_);
        nlohmann::json config = models::reading_config();
        config["guidance"] = 1.75;
        models::write_model(teacher_, models::tiny_model(config, 7));
    }

    core::TestFolder folder_;
    fs::path ensemble_, teacher_;
};

TEST_F(Prompts, each_image_depends_on_its_seed_number_and_prompt_alone) {
    const auto pipeline = Pipeline::load(ensemble_);
    const Tensor together = pipeline->draw(all_of(4));
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        const Tensor alone = pipeline->draw(only(4, i));
        EXPECT_TRUE(at::allclose(alone[0], together[static_cast<std::int64_t>(i)], 1e-4, 1e-5))
            << prompts[i];
    }
    EXPECT_FALSE(at::equal(together, pipeline->draw(all_of(5))));
}

TEST_F(Prompts, the_student_that_owns_a_prompt_draws_it) {
    const auto pipeline = Pipeline::load(ensemble_);
    const Tensor embeddings = pipeline->encode(conditions_of(prompts)).embeddings;
    const auto owners = pipeline->route(conditions_of(prompts));
    std::vector<std::int64_t> counts(2);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        const std::int64_t owner = owners[i].student;
        EXPECT_EQ(owner, embeddings[static_cast<std::int64_t>(i)][0].item<float>() >= 0 ? 0 : 1);
        ++counts[static_cast<std::size_t>(owner)];
        const models::Model student = models::read_student(models::read_ensemble(ensemble_), owner);
        const Tensor z = diffusion::image_noise(4, static_cast<std::int64_t>(i), 1, {1, 4, 4});
        at::NoGradGuard no_gradients;
        const Tensor request = student.denoiser().denoise(
            z * 80, at::full({1}, 80.0), {embeddings.narrow(0, static_cast<std::int64_t>(i), 1)});
        EXPECT_TRUE(at::allclose(pipeline->draw(only(4, i)), request, 1e-4, 1e-4));
    }
    EXPECT_GT(counts[0] * counts[1], 0) << "both students must be tried";
}

TEST_F(Prompts, engines_agree) {
    for (const fs::path& path : {ensemble_, teacher_}) {
        const auto torch = Pipeline::load(path);
        for (const char* engine : {"openvino", "native"}) {
            const auto other = Pipeline::load(path, {.engine = engine_of(engine, "fp32", "cpu")});
            EXPECT_TRUE(at::allclose(torch->draw(all_of(1)), other->draw(all_of(1)), 1e-3, 1e-3))
                << path << " on " << engine;
        }
    }
}

TEST_F(Prompts, teachers_use_the_guidance_of_their_config_by_default) {
    const auto by_default = Pipeline::load(teacher_),
               guided = Pipeline::load(teacher_, {.guidance = 1.75}),
               plain = Pipeline::load(teacher_, {.guidance = 1.0});
    EXPECT_EQ(by_default->guidance(), 1.75);
    EXPECT_TRUE(at::equal(by_default->draw(all_of(1)), guided->draw(all_of(1))));
    EXPECT_FALSE(at::allclose(by_default->draw(all_of(1)), plain->draw(all_of(1)), 1e-3, 1e-3));
}

TEST_F(Prompts, students_reject_steps_and_guidance) {
    for (const fs::path& path : {ensemble_, ensemble_ / "students/1"}) {
        expect_contains(error_of([&] { Pipeline::load(path, {.sampler = "heun:4"}); }),
                        "take the steps they were trained for");
        expect_contains(error_of([&] { Pipeline::load(path, {.guidance = 2.0}); }), "--guidance");
    }
}

TEST_F(Prompts, a_student_alone_draws_with_the_encoder_of_its_ensemble) {
    const auto ensemble = Pipeline::load(ensemble_);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        const std::int64_t owner = ensemble->student_of(prompts[i]);
        const auto alone = Pipeline::load(ensemble_ / "students" / std::to_string(owner));
        EXPECT_TRUE(alone->reads_prompts());
        EXPECT_EQ(alone->students(), 1);
        EXPECT_TRUE(at::allclose(alone->draw(only(4, i)), ensemble->draw(only(4, i)), 1e-4, 1e-5));
    }
}

TEST_F(Prompts, a_class_is_rejected) {
    const auto pipeline = Pipeline::load(ensemble_);
    expect_contains(
        error_of([&] { pipeline->draw(std::vector<SampleRequest>{{4, 0, ClassId{1}}}); }),
        "knows no classes");
}

TEST_F(Prompts, a_prompt_that_is_not_text_is_rejected) {
    const auto pipeline = Pipeline::load(ensemble_);
    expect_contains(error_of([&] {
                        pipeline->draw(std::vector<SampleRequest>{{0, 0, std::string("\xff\xfe")}});
                    }),
                    "UTF-8");
}

}  // namespace
}  // namespace atelier::inference
