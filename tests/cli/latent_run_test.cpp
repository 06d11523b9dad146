#include <algorithm>
#include <fstream>

#include "atelier/core/atomic_file.h"
#include "atelier/core/image_file.h"
#include "atelier/models/ensemble.h"
#include "cli/program.h"
#include "models/diffusers_fixtures.h"

/// From a small Stable Diffusion to students that draw prompts in one step.
namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

class LatentRun : public testing::Test {
protected:
    LatentRun() {
        std::ofstream prompts(path("prompts.txt"));
        for (const char* of : {"cat", "dog", "house", "boat"})
            prompts << "a photo of a " << of << "\nmany a " << of << "\n the " << of << " again\n";
    }

    std::string path(const std::string& name) const { return (folder_ / name).string(); }

    /// Images with caption files beside them.
    void write_images() const {
        fs::create_directories(folder_ / "pictures");
        for (int i = 0; i < 6; ++i) {
            core::Image image{16, 16, 3, {}};
            for (int p = 0; p < 16 * 16 * 3; ++p)
                image.pixels.push_back(static_cast<std::uint8_t>((p * (i + 3)) % 251));
            core::write_png(folder_ / fmt::format("pictures/{}.png", i), image);
            std::ofstream(folder_ / fmt::format("pictures/{}.txt", i))
                << "picture " << std::string(static_cast<std::size_t>(i + 1), 'a');
        }
    }

    /// The recipe, cut down to the small model and a few steps.
    std::vector<std::string> command(const std::string& recipe, const std::string& data,
                                     std::vector<std::string> more = {}) const {
        std::vector<std::string> words{
            "run",
            std::string(ATELIER_SOURCE_DIR) + "/configs/" + recipe + ".toml",
            "device=cpu",
            "precision=fp32",
            "threads=1",
            "students.threads=1",
            "data.path=" + data,
            "data.shape=[4,8,8]",
            "teacher.path=" + model_.path().string(),
            "output=" + path("run"),
            "partition.students=2",
            "dm.steps=2",
            "dm.batch=4",
            "dm.micro_batch=2",
            "dm.fake_updates=2",
            "adm.batch=4",
            "adm.micro_batch=0",
            "adm.fake_updates=2",
            "probe.every=2",
            "probe.count=2"};
        words.insert(words.end(), more.begin(), more.end());
        return words;
    }

    models::SmallStableDiffusion model_{1};
    core::TestFolder folder_;
};

}  // namespace

TEST_F(LatentRun, prompts_alone_train_students_that_draw_prompts_and_become_diffusers_directories) {
    const Answer made = atelier(command("sd15-msd4-dm", "prompts:" + path("prompts.txt")));
    ASSERT_EQ(made.code, 0) << made.error;
    EXPECT_TRUE(fs::exists(folder_ / "run/texts/shard-00000.safetensors"));
    EXPECT_TRUE(fs::exists(folder_ / "run/students/1/dm/training/samples/step-000002.png"));
    const std::string ensemble = path("run/ensemble");
    const std::vector<std::string> sampling{
        "sample", ensemble, "--prompt", "a photo of a cat", "--count", "2",
        "--seed", "3",      "--out",    path("a.png"),      "--json"};
    const Answer first = atelier(sampling);
    ASSERT_EQ(first.code, 0) << first.error;
    const std::string bytes = core::read_text(folder_ / "a.png");
    EXPECT_EQ(atelier(sampling).code, 0);
    EXPECT_EQ(core::read_text(folder_ / "a.png"), bytes);
    const auto student = nlohmann::json::parse(first.out).at("student").get<int>();

    // A run stands for its ensemble; training that cannot be timed, and damage, are reported.
    auto of_run = sampling;
    of_run[1] = path("run");
    const Answer drawn_by_run = atelier(of_run);
    EXPECT_EQ(drawn_by_run.code, 0) << drawn_by_run.error;
    EXPECT_EQ(core::read_text(folder_ / "a.png"), bytes);
    const Answer timed = atelier({"benchmark", ensemble, "--training"});
    EXPECT_EQ(timed.code, 2);
    EXPECT_NE(timed.error.find("reads prompts"), std::string::npos) << timed.error;
    EXPECT_NE(atelier({"inspect", ensemble}).out.find("files as they were written"),
              std::string::npos);

    // One student as a diffusers directory, sampled in one step of DDIM from the last time step.
    ASSERT_EQ(atelier({"convert", ensemble + "/students/" + std::to_string(student),
                       path("student"), "--to", "diffusers"})
                  .code,
              0);
    const models::DiffusersDirectory written(folder_ / "student");
    EXPECT_EQ(written.about().at("unet").at("parameters"),
              models::DiffusersDirectory(model_.path()).about().at("unet").at("parameters"));
    EXPECT_NE(backends::hash_of(written.unet_weights().read()),
              backends::hash_of(models::DiffusersDirectory(model_.path()).unet_weights().read()));
    EXPECT_EQ(atelier({"sample", path("run/teacher"), "--prompt", "a photo of a cat", "--sampler",
                       "heun", "--steps", "2", "--out", path("b.png")})
                  .code,
              0);
    core::write_text(folder_ / "run/ensemble/vae/diffusion_pytorch_model.safetensors", "damaged");
    EXPECT_NE(atelier({"inspect", ensemble})
                  .error.find("vae/diffusion_pytorch_model.safetensors: differs from its checksum"),
              std::string::npos);
}

TEST_F(LatentRun, images_and_captions_can_be_encoded_beforehand_in_shards) {
    write_images();
    const auto of = [&](const std::string& name, const std::string& output,
                        std::vector<std::string> more = {}) {
        auto words = command("sd15-msd4-dm", path("pictures"), {"dm.steps=1"});
        words[0] = name;
        std::ranges::find(words, "output=" + path("run"))->assign("output=" + path(output));
        words.insert(words.end(), more.begin(), more.end());
        return atelier(words);
    };
    const Answer early = of("encode", "run", {"--shard", "1/2"});
    EXPECT_EQ(early.code, 2);
    EXPECT_NE(early.error.find("has no finished teacher yet"), std::string::npos) << early.error;
    for (const char* output : {"run", "other", "whole", "three"})
        EXPECT_EQ(of("teacher", output).code, 0);
    EXPECT_FALSE(fs::exists(folder_ / "run/latents"));
    const Answer second = of("encode", "run", {"--shard", "2/2"});  // there is one file of each
    EXPECT_EQ(second.code, 0) << second.error;
    EXPECT_NE(second.error.find("shard 2/2 is done, others of the 2 are not"), std::string::npos);
    const Answer first = of("encode", "run", {"--shard", "1/2"});
    EXPECT_EQ(first.code, 0) << first.error;
    const Answer all = of("partition", "other");  // encodes what it needs
    EXPECT_EQ(all.code, 0) << all.error;
    EXPECT_EQ(of("encode", "whole", {"--shard", "1/1"}).code, 0);
    for (const char* shard : {"2/3", "3/3", "1/3"})
        EXPECT_EQ(of("encode", "three", {"--shard", shard}).code, 0);
    for (const char* file : {"latents/shard-00000.safetensors", "texts/shard-00000.safetensors"}) {
        for (const char* output : {"run", "whole", "three"})
            EXPECT_EQ(core::read_text(folder_ / output / file),
                      core::read_text(folder_ / "other" / file))
                << output << " " << file;
    }
    const Answer later = of("partition", "run");
    EXPECT_EQ(later.code, 0) << later.error;
    EXPECT_EQ(later.error.find("encoding"), std::string::npos) << later.error;
    const Answer pixels =
        atelier({"encode", std::string(ATELIER_SOURCE_DIR) + "/configs/toy2d.toml",
                 "output=" + path("toy")});
    EXPECT_EQ(pixels.code, 2);
    EXPECT_NE(pixels.error.find("there is nothing to encode here"), std::string::npos);
}

TEST_F(LatentRun,
       captioned_images_are_encoded_once_and_smaller_students_start_with_score_matching) {
    write_images();
    const auto words =
        command("sd15-msd4-small", path("pictures"),
                {"students.widths=[4]", "tsm.steps=2", "tsm.batch=4", "tsm.micro_batch=0",
                 "adm.steps=2", "activation_checkpointing=false"});
    const Answer made = atelier(words);
    ASSERT_EQ(made.code, 0) << made.error;
    EXPECT_TRUE(fs::exists(folder_ / "run/latents/shard-00000.safetensors"));
    EXPECT_TRUE(fs::exists(folder_ / "run/students/0/tsm/model.safetensors"));
    const auto written = fs::last_write_time(folder_ / "run/latents/shard-00000.safetensors");
    fs::remove_all(folder_ / "run/students/0");
    fs::remove_all(folder_ / "run/ensemble");
    EXPECT_EQ(atelier(words).code, 0);
    EXPECT_EQ(fs::last_write_time(folder_ / "run/latents/shard-00000.safetensors"), written);
    const auto config = core::read_json(folder_ / "run/ensemble/students/1/config.json");
    EXPECT_EQ(config.at("unet").at("block_out_channels"), (std::vector<int>{4, 8}));
}

TEST_F(LatentRun, low_rank_students_share_one_base) {
    const Answer made = atelier(
        command("sd15-msd4-dm", "prompts:" + path("prompts.txt"), {"students.lora_rank=2"}));
    ASSERT_EQ(made.code, 0) << made.error;
    const fs::path ensemble = folder_ / "run/ensemble";
    EXPECT_LT(fs::file_size(ensemble / "students/0/model.safetensors"),
              fs::file_size(ensemble / "base/model.safetensors") / 2);
    const auto sampled = [&](const std::string& engine) {
        const Answer answer =
            atelier({"sample", ensemble.string(), "--prompt", "many a dog", "--seed", "1",
                     "--engine", engine, "--out", path(engine + ".png")});
        EXPECT_EQ(answer.code, 0) << answer.error;
        return core::read_image(folder_ / (engine + ".png")).pixels;
    };
    const auto by_torch = sampled("torch"),
               by_openvino = sampled("openvino");  // which merges deltas and base
    int furthest = 0;
    for (std::size_t i = 0; i < by_torch.size(); ++i)
        furthest = std::max(furthest, std::abs(by_torch[i] - by_openvino[i]));
    EXPECT_LE(furthest, 2);

    const models::Ensemble read = models::read_ensemble(ensemble);
    const models::Model first = models::read_student(read, 0, at::kCPU, models::Weights::shared),
                        second = models::read_student(read, 1, at::kCPU, models::Weights::shared);
    EXPECT_EQ(first.parameters.base(), second.parameters.base()) << "in memory once";
    ASSERT_EQ(atelier({"convert", (ensemble / "students/1").string(), path("student"), "--to",
                       "diffusers"})
                  .code,
              0);
    EXPECT_EQ(models::DiffusersDirectory(folder_ / "student").unet_weights().count(),
              models::DiffusersDirectory(model_.path()).unet_weights().count());

    nlohmann::json config = core::read_json(ensemble / "students/0/config.json");
    config["lora"]["base"] = "../../../teacher";
    core::write_json(ensemble / "students/0/config.json", config);
    EXPECT_NE(
        backends::error_of([&] { models::read_student(read, 0); }).find("leaves the ensemble"),
        std::string::npos);
}

TEST_F(LatentRun, settings_that_do_not_fit_are_rejected_before_anything_is_made) {
    const std::string prompts = "prompts:" + path("prompts.txt");
    const auto refused = [&](const std::vector<std::string>& words, const std::string& why) {
        const Answer answer = atelier(words);
        EXPECT_EQ(answer.code, 2) << answer.error;
        EXPECT_NE(answer.error.find(why), std::string::npos) << answer.error;
        EXPECT_FALSE(fs::exists(folder_ / "run/students"));
    };
    refused(command("sd15-msd4-adm", prompts, {"adm.steps=2"}), "adm.steps = 0");
    refused(command("sd15-msd4-dm", prompts, {"students.widths=[4]"}), "teacher score matching");
    refused(command("sd15-msd4-dm", prompts, {"data.flips=true"}), "data.flips");
    refused(command("sd15-msd4-dm", "toy:ring"), "has no captions");
    nlohmann::json scheduler = core::read_json(model_.path() / "scheduler/scheduler_config.json");
    scheduler["rescale_betas_zero_snr"] = true;
    core::write_json(model_.path() / "scheduler/scheduler_config.json", scheduler);
    const Answer zero_snr = atelier(command("sd15-msd4-dm", prompts));
    EXPECT_EQ(zero_snr.code, 1);
    EXPECT_NE(
        zero_snr.error.find("scheduler_config.json: scheduler: \"rescale_betas_zero_snr\" is true"),
        std::string::npos)
        << zero_snr.error;
    EXPECT_FALSE(fs::exists(folder_ / "run"));
    refused({"run", std::string(ATELIER_SOURCE_DIR) + "/configs/toy2d.toml", "data.path=" + prompts,
             "output=" + path("run")},
            "prompts alone");
}

TEST_F(LatentRun, an_unsupported_teacher_or_size_is_rejected_before_anything_is_written) {
    const Answer resized = atelier(
        command("sd15-msd4-dm", "prompts:" + path("prompts.txt"), {"data.shape=[4,64,64]"}));
    EXPECT_EQ(resized.code, 2);
    core::expect_contains(resized.error,
                          "the teacher's latents are [4,8,8], but data.shape asks for [4,64,64]; "
                          "set data.shape = [4,8,8], or leave it out");
    EXPECT_EQ(resized.error.find("import"), std::string::npos) << "prompts cannot be imported";

    const fs::path scheduler = model_.path() / "scheduler/scheduler_config.json";
    nlohmann::json json = core::read_json(scheduler);
    json["rescale_betas_zero_snr"] = true;
    core::write_json(scheduler, json);
    for (const char* dry : {"", "--dry-run"}) {
        const Answer refused =
            atelier(command("sd15-msd4-dm", "prompts:" + path("prompts.txt"),
                            *dry ? std::vector<std::string>{dry} : std::vector<std::string>{}));
        EXPECT_NE(refused.code, 0);
        core::expect_contains(refused.error, "rescale_betas_zero_snr");
        core::expect_contains(refused.error, scheduler.string());
    }
    EXPECT_FALSE(fs::exists(folder_ / "run"));
}

}  // namespace atelier::cli
