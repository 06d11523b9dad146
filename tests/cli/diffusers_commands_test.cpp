#include <fstream>

#include "atelier/conditions/embeddings.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/image_file.h"
#include "cli/program.h"
#include "metrics/inception_fixture.h"
#include "models/diffusers_fixtures.h"

/// The commands on a small Stable Diffusion, as users run them.
namespace atelier::cli {

namespace {

using models::SmallStableDiffusion;

class DiffusersCommands : public testing::Test {
protected:
    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    std::string model() const { return model_.path().string(); }

    SmallStableDiffusion model_{1};
    core::TestFolder folder_;
};

}  // namespace

TEST_F(DiffusersCommands, tokenize_prints_padded_ids) {
    const Answer answer = atelier({"tokenize", model(), "--json", "a photo of a cat", ""});
    EXPECT_EQ(answer.code, 0) << answer.error;
    const auto ids =
        nlohmann::json::parse(answer.out).get<std::vector<std::vector<std::int64_t>>>();
    const Tensor expected = model_.answers().at("input_ids").narrow(0, 0, 2);
    ASSERT_EQ(ids.size(), 2U);
    for (const int i : {0, 1})
        EXPECT_TRUE(at::tensor(ids[static_cast<std::size_t>(i)], at::kLong).equal(expected[i]));
    EXPECT_EQ(atelier({"tokenize", model(), "caf\xe9"}).code, 1);
}

TEST_F(DiffusersCommands, forward_writes_the_output_of_each_part) {
    const backends::Parameters answers = model_.answers();
    const auto forward = [&](const char* part, std::map<std::string, Tensor> in) {
        backends::write_parameters(path("in.safetensors"), backends::Parameters(std::move(in)));
        const Answer answer =
            atelier({"forward", model(), "--part", part, "--in", path("in.safetensors"), "--out",
                     path("out.safetensors"), "--engine", "torch"});
        EXPECT_EQ(answer.code, 0) << answer.error;
        return backends::read_parameters(path("out.safetensors"));
    };
    const auto near = [&](const Tensor& actual, const char* name) {
        EXPECT_LT(backends::relative_distance(actual, answers.at(name)), 1e-4) << name;
    };
    const auto text = forward("text", {{"input_ids", answers.at("input_ids")}});
    near(text.at("hidden"), "hidden");
    near(text.at("pooled"), "pooled");
    near(forward("unet", {{"x", answers.at("x")},
                          {"t", answers.at("t")},
                          {"hidden", answers.at("hidden").index({at::tensor({0, 2}, at::kLong)})}})
             .at("eps"),
         "eps");
    near(forward("vae", {{"x", answers.at("latent")}}).at("image"), "decoded");
    near(forward("vae-encode", {{"image", answers.at("image")}}).at("mean"), "mean");
    EXPECT_EQ(atelier({"forward", model(), "--part", "nose", "--in", path("in.safetensors"),
                       "--out", path("out.safetensors")})
                  .code,
              2);
}

TEST_F(DiffusersCommands,
       a_scheduler_with_pythons_infinity_is_read_and_inspect_rejects_an_unsupported_one) {
    const auto file = model_.path() / "scheduler/scheduler_config.json";
    nlohmann::json scheduler = core::read_json(file);
    scheduler.update({{"_class_name", "DPMSolverMultistepScheduler"},
                      {"solver_order", 2},
                      {"algorithm_type", "dpmsolver++"},
                      {"solver_type", "midpoint"},
                      {"lower_order_final", true},
                      {"final_sigmas_type", "zero"}});
    std::string text = scheduler.dump(2);
    text.replace(text.find("{"), 1, "{\n  \"lambda_min_clipped\": -Infinity,");
    core::write_text(file, text);
    nlohmann::json index = core::read_json(model_.path() / "model_index.json");
    index["scheduler"] = {"diffusers", "DPMSolverMultistepScheduler"};
    core::write_json(model_.path() / "model_index.json", index);
    EXPECT_EQ(atelier({"inspect", model()}).code, 0);
    const Answer drawn =
        atelier({"sample", model(), "--prompt", "a cat", "--steps", "2", "--out", path("x.jpg")});
    EXPECT_EQ(drawn.code, 0) << drawn.error;
    text.replace(text.find("-Infinity"), 9, "-5.1");
    core::write_text(file, text);
    EXPECT_NE(atelier({"inspect", model()})
                  .error.find("\"lambda_min_clipped\" is -5.1; that is not supported"),
              std::string::npos);
}

TEST_F(DiffusersCommands, sample_draws_a_prompt_and_repeats_byte_for_byte) {
    const auto sample = [&](const std::string& out, const std::string& sampler) {
        const Answer answer =
            atelier({"sample", model(), "--prompt", "a cat", "--negative", "a dog", "--sampler",
                     sampler, "--steps", "3", "--seed", "5", "--count", "2", "--out", path(out)});
        EXPECT_EQ(answer.code, 0) << answer.error;
        return core::read_text(path(out));
    };
    const std::string first = sample("a.png", "dpm++");
    EXPECT_EQ(core::read_image(path("a.png")).channels, 3);
    EXPECT_EQ(sample("b.png", "dpm++"), first);
    EXPECT_NE(sample("c.png", "ddim"), first);
    EXPECT_EQ(atelier({"sample", model(), "--out", path("d.png")}).code, 2);
    EXPECT_EQ(
        atelier({"sample", model(), "--prompt", "a", "--sampler", "heun", "--out", path("d.png")})
            .code,
        2);
    EXPECT_EQ(
        atelier({"sample", model(), "--prompt", "a", "--steps", "1000", "--out", path("d.png")})
            .code,
        2);
}

TEST_F(DiffusersCommands, embed_writes_pooled_rows_and_resumes_after_an_interruption) {
    constexpr std::int64_t prompts = 130, done = 64, partly = 6;  // of the second batch
    std::string text;
    for (std::int64_t i = 0; i < prompts; ++i) text += fmt::format("prompt {}\n", i);
    core::write_text(path("prompts.txt"), text);
    const auto embed = [&] {
        const Answer answer =
            atelier({"embed", model(), path("prompts.txt"), "--out", path("e.safetensors")});
        EXPECT_EQ(answer.code, 0) << answer.error;
        return backends::read_parameters(path("e.safetensors")).at("embeddings");
    };
    const Tensor whole = embed();
    EXPECT_EQ(whole.sizes().vec(), (graph::Shape{prompts, 16}));
    EXPECT_EQ(conditions::Embeddings(path("e.safetensors")).rows(), prompts);
    EXPECT_EQ(folder_.entries(), 2U);
    // Whole batches that exist already are kept, and an incomplete one is made again.
    const auto metadata = core::SafetensorsFile(path("e.safetensors")).metadata();
    core::write_json(
        path("e.safetensors.unfinished.json"),
        {{"encoder", metadata.at("encoder")}, {"prompts", metadata.at("prompts")}, {"width", 16}});
    std::ofstream(path("e.safetensors.unfinished"), std::ios::binary)
        << std::string((done + partly) * 16 * 4 + 5, '\0');
    const Tensor resumed = embed();
    EXPECT_EQ(resumed.narrow(0, 0, done).abs().max().item<double>(), 0);
    EXPECT_TRUE(
        at::equal(resumed.narrow(0, done, prompts - done), whole.narrow(0, done, prompts - done)));
    // Those of other prompts are not.
    core::write_json(path("e.safetensors.unfinished.json"),
                     {{"encoder", metadata.at("encoder")}, {"prompts", "others"}, {"width", 16}});
    std::ofstream(path("e.safetensors.unfinished"), std::ios::binary)
        << std::string(done * 16 * 4, '\0');
    EXPECT_TRUE(embed().equal(whole));
}

TEST_F(DiffusersCommands, shards_of_embed_are_together_one_runs_file) {
    std::string text;
    for (int i = 0; i < 600; ++i) text += fmt::format("prompt {}\n", i);  // three files
    core::write_text(path("prompts.txt"), text);
    const auto embed = [&](const std::string& out, const std::vector<std::string>& more) {
        std::vector<std::string> words{"embed", model(), path("prompts.txt"), "--out", path(out)};
        words.insert(words.end(), more.begin(), more.end());
        const Answer answer = atelier(words);
        EXPECT_EQ(answer.code, 0) << answer.error;
    };
    embed("whole.safetensors", {});
    embed("two.safetensors", {"--shard", "2/2"});
    EXPECT_FALSE(std::filesystem::exists(path("two.safetensors")));
    embed("two.safetensors", {"--shard", "2/2"});  // done again
    embed("two.safetensors", {"--shard", "1/2"});
    EXPECT_EQ(core::read_text(path("two.safetensors")), core::read_text(path("whole.safetensors")));
    embed("two.safetensors", {"--shard", "2/2"});
    EXPECT_FALSE(std::filesystem::exists(path("two.safetensors.parts")));
    embed("one.safetensors", {"--shard", "1/1"});
    for (const char* shard : {"3/3", "1/3", "2/3"}) embed("three.safetensors", {"--shard", shard});
    for (const char* file : {"one.safetensors", "three.safetensors"})
        EXPECT_EQ(core::read_text(path(file)), core::read_text(path("whole.safetensors"))) << file;
}

TEST_F(DiffusersCommands, embed_names_the_line_that_is_not_utf8) {
    core::write_text(path("prompts.txt"), "fine\ncaf\xe9\n");
    const Answer answer =
        atelier({"embed", model(), path("prompts.txt"), "--out", path("e.safetensors")});
    EXPECT_EQ(answer.code, 1);
    backends::expect_contains(answer.error, "prompts.txt:2: ");
}

TEST_F(DiffusersCommands,
       evaluate_draws_one_image_per_caption_and_measures_them_with_inception_and_clip) {
    namespace fs = std::filesystem;
    fs::copy(ATELIER_SOURCE_DIR "/tests/golden/clip", path("clip"));
    fs::copy(ATELIER_SOURCE_DIR "/tests/golden/clip_tokenizer", path("clip"));
    std::map<std::string, Tensor> inception;
    for (const auto& [name, tensor] : metrics::golden_inception_state()) inception[name] = tensor();
    backends::write_parameters(path("inception.safetensors"),
                               backends::Parameters(std::move(inception)));
    core::write_text(path("captions.txt"), "a red cat\na boat at dawn\ntwo shoes\na hat\nrain\n");
    fs::create_directory(path("real"));
    for (int i = 0; i < 6; ++i) {
        core::Image image{.height = 24,
                          .width = 24,
                          .channels = 3,
                          .pixels = std::vector<std::uint8_t>(24 * 24 * 3)};
        for (std::size_t p = 0; p < image.pixels.size(); ++p)
            image.pixels[p] = static_cast<std::uint8_t>(p * static_cast<std::size_t>(i + 3) % 251);
        core::write_png(path(fmt::format("real/{}.png", i)), image);
    }
    const auto evaluate = [&](const char* seed) {
        return atelier({"evaluate", model(),      "--captions",  path("captions.txt"),
                        "--clip",   path("clip"), "--inception", path("inception.safetensors"),
                        "--data",   path("real"), "--split",     "train",
                        "--size",   "24",         "--steps",     "2",
                        "--seed",   seed,         "--out",       path("out")});
    };
    const Answer first = evaluate("4");
    ASSERT_EQ(first.code, 0) << first.error;
    const nlohmann::json result = core::read_json(path("out/evaluation.json")).at("models").front();
    for (const char* name : {"fid", "kid", "precision", "recall", "clip_score"})
        EXPECT_TRUE(result.at("metrics").contains(name)) << name;
    EXPECT_EQ(core::read_image(path("out/pictures/000002.png")).width, 24);

    fs::remove(path("out/pictures/000001.png"));
    const auto untouched = fs::last_write_time(path("out/pictures/000000.png"));
    EXPECT_EQ(evaluate("4").code, 0);
    EXPECT_EQ(core::read_json(path("out/evaluation.json")).at("models").front(), result)
        << "missing images are drawn again, identically";
    EXPECT_EQ(fs::last_write_time(path("out/pictures/000000.png")), untouched);
    const Answer other = evaluate("5");
    EXPECT_EQ(other.code, 2);
    backends::expect_contains(other.error, "another seed");
}

TEST_F(DiffusersCommands,
       evaluate_needs_no_data_for_a_clip_score_and_draws_a_sample_of_the_captions) {
    namespace fs = std::filesystem;
    fs::copy(ATELIER_SOURCE_DIR "/tests/golden/clip", path("clip"));
    fs::copy(ATELIER_SOURCE_DIR "/tests/golden/clip_tokenizer", path("clip"));
    std::string captions;
    for (int i = 0; i < 40; ++i)
        captions += fmt::format("{} number {}\n", i < 20 ? "cats" : "boats", i);
    core::write_text(path("captions.txt"), captions);
    const Answer answer =
        atelier({"evaluate", model(), "--captions", path("captions.txt"), "--clip", path("clip"),
                 "--steps", "1", "--count", "4", "--out", path("out")});
    ASSERT_EQ(answer.code, 0) << answer.error;
    backends::expect_contains(answer.error, "a seeded sample of 4 of its 40 captions is drawn");
    backends::expect_contains(answer.error, path("out/evaluation.json"));
    backends::expect_contains(answer.out, "CLIP score");
    EXPECT_EQ(answer.out.find("  -"), std::string::npos) << "no empty column:\n" << answer.out;
    const nlohmann::json results = core::read_json(path("out/evaluation.json"));
    EXPECT_EQ(results.at("order"), nlohmann::json::array({model()}));
    const nlohmann::json& result = results.at("models").at(model());
    EXPECT_EQ(result.at("metrics").size(), 1U);
    EXPECT_GT(result.at("parameters").get<std::int64_t>(), 1000);
    EXPECT_EQ(result.at("evaluations"), 1);
    std::string drawn;
    for (int i = 0; i < 4; ++i)
        drawn += core::read_text(path(fmt::format("out/pictures/00000{}.png", i)));
    backends::expect_contains(drawn, "boats number");

    const Answer nothing =
        atelier({"evaluate", model(), "--captions", path("captions.txt"), "--out", path("other")});
    EXPECT_EQ(nothing.code, 2);
    backends::expect_contains(nothing.error, "--data is needed");
}

TEST_F(DiffusersCommands, inspect_and_convert_accept_the_directory) {
    const Answer about = atelier({"inspect", model(), "--json"});
    EXPECT_EQ(about.code, 0) << about.error;
    EXPECT_EQ(nlohmann::json::parse(about.out).at("image_size"), 16);
    EXPECT_EQ(atelier({"convert", model(), path("copy"), "--to", "diffusers"}).code, 0);
    const Answer copy = atelier({"inspect", path("copy"), "--json"});
    EXPECT_EQ(copy.out, about.out);
    EXPECT_EQ(atelier({"convert", model(), path("other"), "--to", "edm"}).code, 2);
}

}  // namespace atelier::cli
