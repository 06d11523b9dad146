#include "atelier/inference/prompted_generator.h"

#include "models/prompt_fixtures.h"

namespace atelier::inference {
namespace {

namespace fs = std::filesystem;
using core::error_of;
using core::expect_contains;

const std::vector<std::string> prompts{
    "a white shoe", "two black bags", "a shoe", "bags, bags, bags", "", "two shoes"};

PromptSampleRequest all_of(std::uint64_t seed) { return {seed, {0, 1, 2, 3, 4, 5}, prompts}; }

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
    PromptedGenerator generator(ensemble_, std::nullopt, std::nullopt, {});
    const Tensor together = generator.draw(all_of(4));
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        const Tensor alone = generator.draw({4, {static_cast<std::int64_t>(i)}, {prompts[i]}});
        EXPECT_TRUE(at::allclose(alone[0], together[static_cast<std::int64_t>(i)], 1e-4, 1e-5))
            << prompts[i];
    }
    EXPECT_FALSE(at::equal(together, generator.draw(all_of(5))));
}

TEST_F(Prompts, the_student_that_owns_a_prompt_draws_it) {
    PromptedGenerator generator(ensemble_, std::nullopt, std::nullopt, {});
    const Tensor embeddings = generator.encoder().embed(prompts);
    std::vector<std::int64_t> counts(2);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        const std::int64_t owner =
            generator.route(embeddings[static_cast<std::int64_t>(i)]).student;
        EXPECT_EQ(owner, embeddings[static_cast<std::int64_t>(i)][0].item<float>() >= 0 ? 0 : 1);
        ++counts[static_cast<std::size_t>(owner)];
        const models::Model student = models::read_student(models::read_ensemble(ensemble_), owner);
        const Tensor z = diffusion::image_noise(4, static_cast<std::int64_t>(i), 1, {1, 4, 4});
        at::NoGradGuard no_gradients;
        const Tensor request = student.denoiser().denoise(
            z * 80, at::full({1}, 80.0), {embeddings.narrow(0, static_cast<std::int64_t>(i), 1)});
        EXPECT_TRUE(at::allclose(generator.draw({4, {static_cast<std::int64_t>(i)}, {prompts[i]}}),
                                 request, 1e-4, 1e-4));
    }
    EXPECT_GT(counts[0] * counts[1], 0) << "both students must be tried";
}

TEST_F(Prompts, engines_agree) {
    for (const fs::path& path : {ensemble_, teacher_}) {
        PromptedGenerator torch(path, std::nullopt, std::nullopt, {}),
            openvino(path, std::nullopt, std::nullopt, engine_of("openvino", "fp32", "cpu"));
        EXPECT_TRUE(at::allclose(torch.draw(all_of(1)), openvino.draw(all_of(1)), 1e-3, 1e-3))
            << path;
    }
}

TEST_F(Prompts, teachers_use_the_guidance_of_their_config_by_default) {
    PromptedGenerator by_default(teacher_, std::nullopt, std::nullopt, {}),
        guided(teacher_, std::nullopt, 1.75, {}), plain(teacher_, std::nullopt, 1.0, {});
    EXPECT_EQ(by_default.guidance(), 1.75);
    EXPECT_TRUE(at::equal(by_default.draw(all_of(1)), guided.draw(all_of(1))));
    EXPECT_FALSE(at::allclose(by_default.draw(all_of(1)), plain.draw(all_of(1)), 1e-3, 1e-3));
}

TEST_F(Prompts, students_reject_steps_and_guidance) {
    const Sampling heun{Sampling::Method::heun, 4};
    expect_contains(error_of([&] { PromptedGenerator(ensemble_, heun, std::nullopt, {}); }),
                    "take one step");
    expect_contains(error_of([&] { PromptedGenerator(ensemble_, std::nullopt, 2.0, {}); }),
                    "--guidance");
}

TEST_F(Prompts, a_prompt_that_is_not_text_is_rejected) {
    PromptedGenerator generator(ensemble_, std::nullopt, std::nullopt, {});
    expect_contains(error_of([&] { generator.draw({0, {0}, {"\xff\xfe"}}); }), "UTF-8");
}

}  // namespace
}  // namespace atelier::inference
