#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "atelier/core/atomic_file.h"
#include "atelier/core/image_file.h"
#include "atelier/core/npz.h"
#include "atelier/serving/served_model.h"
#include "cli/program.h"
#include "models/diffusers_fixtures.h"
#include "models/prompt_fixtures.h"

/// Every kind of model with every feature. A feature that a kind does not have is in `holes`, with
/// the reason that the program gives.
namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

struct Kind {
    const char* name;
    bool prompts;  // conditioned on prompts instead of classes
    bool points;   // instead of images
};

constexpr std::array<Kind, 13> kinds{{{"class_ensemble", false, false},
                                      {"few_step_ensemble", false, false},
                                      {"prompt_ensemble", true, false},
                                      {"latent_ensemble", true, false},
                                      {"low_rank_ensemble", true, false},
                                      {"class_model", false, false},
                                      {"prompt_model", true, false},
                                      {"prompt_student", true, false},
                                      {"points", false, true},
                                      {"diffusers_directory", true, false},
                                      {"sdxl_directory", true, false},
                                      {"sd3_directory", true, false},
                                      {"dit_directory", false, false}}};

/// Kind and feature, and what the program's message contains instead.
const std::map<std::pair<std::string, std::string>, std::string> holes{
    // The server's answers are images.
    {{"points", "serve"}, "only image models are served"},
    // Its network is an MLP; int8 is for convolutions.
    {{"points", "quantize"}, "no convolutions"},
    // int8 models are model directories, and so are what is exported; these have no such form yet.
    {{"sdxl_directory", "quantize"}, "Stable Diffusion 1 and 2 only"},
    {{"sd3_directory", "quantize"}, "Stable Diffusion 1 and 2 only"},
    {{"dit_directory", "quantize"}, "Stable Diffusion 1 and 2 only"},
    {{"sdxl_directory", "convert"}, "Stable Diffusion 1 and 2 only"},
    {{"sd3_directory", "convert"}, "Stable Diffusion 1 and 2 only"},
    {{"dit_directory", "convert"}, "Stable Diffusion 1 and 2 only"},
    // Shards write pictures, each a file of its own.
    {{"points", "shards"}, "points are written as .npz or .png, not as a folder"},
};

nlohmann::json image_config() {
    nlohmann::json config = models::reading_config();
    config.erase("condition");
    config["classes"] = 4;
    config["resolution"] = 8;
    return config;
}

class EveryKind : public testing::TestWithParam<Kind> {
protected:
    EveryKind() {
        std::ofstream(path("prompts.txt")) << "a photo of a cat\nmany a dog\ntwo black bags\n";
        model_ = make();
    }

    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    static std::string kind() { return GetParam().name; }
    static bool prompts() { return GetParam().prompts; }
    /// A diffusers directory, which takes many steps unless told otherwise.
    static bool is_directory() { return kind().ends_with("_directory"); }

    std::string make() const {
        if (kind() == "class_ensemble" || kind() == "few_step_ensemble") {
            const auto partition = models::odd_and_even();
            nlohmann::json second = image_config();
            if (kind() == "few_step_ensemble") second["steps"] = 3;
            models::write_ensemble(
                folder_ / "ensemble", partition, models::uneven_prior(),
                {models::write_student(folder_ / "made/0", partition, 0, image_config()),
                 models::write_student(folder_ / "made/1", partition, 1, second)},
                "teacher's hash", nlohmann::json::object());
            return path("ensemble");
        }
        if (kind() == "prompt_ensemble") return models::write_prompt_ensemble_of_two(folder_);
        if (kind() == "prompt_student")
            return (models::write_prompt_ensemble_of_two(folder_) / "students/1").string();
        if (kind() == "latent_ensemble") return run_of_latents({});
        if (kind() == "low_rank_ensemble") return run_of_latents({"students.lora_rank=2"});
        if (kind() == "class_model") {
            models::write_model(folder_ / "model", models::tiny_model(image_config(), 7));
            return path("model");
        }
        if (kind() == "prompt_model") {
            models::write_tiny_encoder(folder_ / "model");
            nlohmann::json config = models::reading_config();
            config["guidance"] = 1.5;
            models::write_model(folder_ / "model", models::tiny_model(config, 7));
            return path("model");
        }
        if (kind() == "points") return models::write_tiny_ensemble(folder_).string();
        if (other_) return other_->path().string();
        return diffusion_->path().string();
    }

    /// The ensemble of a short run on the small Stable Diffusion.
    std::string run_of_latents(const std::vector<std::string>& more) const {
        std::vector<std::string> words{
            "run",
            std::string(ATELIER_SOURCE_DIR) + "/configs/sd15-msd4-dm.toml",
            "device=cpu",
            "precision=fp32",
            "threads=1",
            "students.threads=1",
            "students.parallel=1",
            "data.path=prompts:" + path("prompts.txt"),
            "data.shape=[4,8,8]",
            "teacher.path=" + diffusion_->path().string(),
            "output=" + path("run"),
            "partition.students=2",
            "dm.steps=1",
            "dm.batch=2",
            "dm.micro_batch=2",
            "dm.fake_updates=1",
            "probe.every=0",
            "probe.count=2"};
        words.insert(words.end(), more.begin(), more.end());
        const Answer made = atelier(words);
        EXPECT_EQ(made.code, 0) << made.error;
        return path("run/ensemble");
    }

    std::vector<std::string> sampling(const std::string& of, const std::string& out) const {
        std::vector<std::string> words{"sample", of,  "--out",   path(out),
                                       "--seed", "5", "--count", "2"};
        const std::vector<std::string> asked =
            prompts() ? std::vector<std::string>{"--prompt", "a photo of a cat"}
                      : std::vector<std::string>{"--class", "1"};
        words.insert(words.end(), asked.begin(), asked.end());
        if (is_directory() && of == model_) words.insert(words.end(), {"--steps", "2"});
        return words;
    }

    /// Whether the feature works; a hole must fail with its reason.
    bool has(const std::string& feature, const Answer& answer) const {
        const auto hole = holes.find({kind(), feature});
        if (hole == holes.end()) {
            EXPECT_EQ(answer.code, 0) << feature << ": " << answer.error;
            return answer.code == 0;
        }
        EXPECT_NE(answer.code, 0) << feature << " works; it is a hole no more";
        EXPECT_NE(answer.error.find(hole->second), std::string::npos) << answer.error;
        return false;
    }

    /// Data like the model's samples, with captions or classes.
    std::string data() const {
        if (GetParam().points) return "toy:ring";
        std::vector<std::string> words = sampling(model_, prompts() ? "data" : "data.npz");
        words[7] = "12";
        if (!prompts())
            *(std::ranges::find(words, "--class") + 1) =
                kind() == "dit_directory" ? "0,1,2,3,4" : "0,1,2,3";
        const Answer made = atelier(words);
        EXPECT_EQ(made.code, 0) << made.error;
        if (!prompts()) return path("data.npz");
        for (int i = 0; i < 12; ++i)
            std::ofstream(folder_ / fmt::format("data/{:06}.txt", i))
                << (i % 2 == 0 ? "a photo of a cat" : "many a dog");
        return path("data");
    }

    void sample() const {
        const Answer drawn = atelier(sampling(model_, "x.png"));
        if (!has("sample", drawn)) return;
        EXPECT_GT(core::read_image(folder_ / "x.png").width, 0);
        EXPECT_EQ(atelier(sampling(model_, "a.npz")).code, 0);
        EXPECT_EQ(atelier(sampling(model_, "b.npz")).code, 0);
        EXPECT_EQ(core::read_text(folder_ / "a.npz"), core::read_text(folder_ / "b.npz"))
            << "the same bytes";
    }

    void serve() const {
        Answer answer{0, "", ""};
        try {
            const auto source = serving::served_source(
                "m", model_, {.engine = inference::engine_of("auto", "auto", "cpu")});
            const auto generator = source.open();
            const auto& description = generator->description();
            server::Draw draw{.seed = 5, .number = 0, .class_id = 1};
            std::int64_t student =
                description.partition.students > 1 && !description.reads_prompts ? 1 : 0;
            EXPECT_EQ(description.reads_prompts, prompts());
            if (description.reads_prompts) {
                draw.prompt = "a photo of a cat";
                const auto encoded = generator->encode({&draw.prompt, 1}).front();
                draw.conditioning = encoded.conditioning;
                student = encoded.student;
            }
            EXPECT_GT(generator->facts(student).bytes, 0);
            const auto images = generator->load(student)->generate({&draw, 1}, {});
            EXPECT_EQ(images.front().image.width, description.width);
            EXPECT_EQ(images.front().image.height, description.height);
            EXPECT_EQ(images.front().text.at("seed"), "5");
        } catch (const std::exception& error) {
            answer = {1, "", error.what()};
        }
        has("serve", answer);
    }

    void evaluate() const {
        std::vector<std::string> words{
            "evaluate",        model_,   "--data",       data(), "--count", "6", "--out",
            path("evaluated"), "--json", "--classifier", ""};
        if (is_directory()) words.insert(words.end(), {"--sampler", "euler", "--steps", "2"});
        const Answer answer = atelier(words);
        if (!has("evaluate", answer)) return;
        auto results = nlohmann::json::parse(answer.out);
        EXPECT_FALSE(results.at("models").at(model_).at("metrics").empty());
        words[7] = path("shared");
        for (const char* shard : {"2/2", "1/2"}) {
            std::vector<std::string> part = words;
            part.insert(part.end(), {"--shard", shard});
            const Answer made = atelier(part);
            EXPECT_EQ(made.code, 0) << made.error;
        }
        auto shared = core::read_json(folder_ / "shared/evaluation.json");
        for (auto* each : {&results, &shared}) {
            for (auto& [name, result] : each->at("models").items()) result.erase("latency");
        }
        EXPECT_EQ(shared, results);
    }

    /// Two shards write the files of one process.
    void shards() const {
        std::vector<std::string> words = sampling(model_, "shards");
        words.insert(words.end(), {"--shard", "1/2"});
        if (!has("shards", atelier(words))) return;
        words.back() = "2/2";
        EXPECT_EQ(atelier(words).code, 0);
        EXPECT_EQ(atelier(words).code, 0) << "again";
        EXPECT_EQ(atelier(sampling(model_, "whole")).code, 0);
        int pictures = 0;
        for (const auto& entry : fs::directory_iterator(folder_ / "whole")) {
            ++pictures;
            EXPECT_EQ(core::read_text(entry.path()),
                      core::read_text(folder_ / "shards" / entry.path().filename()));
        }
        EXPECT_GT(pictures, 1);
    }

    void quantize() const {
        std::vector<std::string> words{"quantize",  model_, "--out",       path("int8"),
                                       "--samples", "4",    "--tolerance", "1"};
        if (prompts()) words.insert(words.end(), {"--prompts", path("prompts.txt")});
        if (!has("quantize", atelier(words))) return;
        std::vector<std::string> drawing = sampling(path("int8"), "int8.png");
        if (kind() == "diffusers_directory" || kind() == "prompt_model" || kind() == "class_model")
            drawing.insert(drawing.end(), {"--sampler", "heun", "--steps", "2"});
        const Answer drawn = atelier(drawing);
        EXPECT_EQ(drawn.code, 0) << drawn.error;
        EXPECT_NE(core::read_text(folder_ / "int8.png").find("int8"), std::string::npos)
            << "the precision in the metadata";
    }

    void benchmark() const {
        const Answer answer = atelier({"benchmark", model_, "--runs", "1", "--batch", "2"});
        if (!has("benchmark", answer)) return;
        const auto figures = nlohmann::json::parse(answer.out);
        EXPECT_GT(figures.at("median_seconds").get<double>(), 0);
        EXPECT_GT(figures.at("request_median_seconds").get<double>(), 0);
        EXPECT_GT(figures.at("flops").get<double>(), 0);
    }

    void convert() const {
        const bool file =
            kind() == "class_model" || kind() == "prompt_model" || kind() == "prompt_student";
        const std::string to = path(file ? "x.onnx" : "onnx");
        const bool converted = has("convert", atelier({"convert", model_, to, "--to", "onnx"}));
        EXPECT_EQ(converted, fs::exists(to));
    }

    /// The bytes that Python draws are the program's.
    void python() const {
#ifdef ATELIER_PYTHON
        const std::string condition = prompts() ? "prompts='a photo of a cat'" : "classes=1";
        const std::string more = is_directory() ? ", steps=2" : "";
        core::write_text(folder_ / "draw.py",
                         fmt::format("import atelier\n"
                                     "model = atelier.load('{}'{})\n"
                                     "drawn = model.sample(2, {}, seed=5)\n"
                                     "assert model.route({}).shape == (1,)\n"
                                     "assert len(model.hash) == 64\n"
                                     "open('{}', 'wb').write(drawn.tobytes())\n",
                                     model_, more, condition, condition, path("drawn")));
        const std::string command =
            fmt::format("PYTHONPATH={} {} {} 2>{}", ATELIER_PYTHON_PATH, ATELIER_PYTHON,
                        path("draw.py"), path("python.log"));
        const int code = std::system(command.c_str());
        if (!has("python", {code, "", core::read_text(folder_ / "python.log")})) return;
        EXPECT_EQ(atelier(sampling(model_, "program.npz")).code, 0);
        const auto arrays = core::read_npz(folder_ / "program.npz");
        const auto& bytes = arrays.at("arr_0").bytes;
        const std::string drawn = core::read_text(folder_ / "drawn");
        ASSERT_EQ(drawn.size(), bytes.size());
        EXPECT_EQ(std::memcmp(drawn.data(), bytes.data(), bytes.size()), 0);
#endif
    }

    core::TestFolder folder_;
    std::unique_ptr<models::SmallStableDiffusion> diffusion_ =
        std::make_unique<models::SmallStableDiffusion>(1);
    /// Of another family than Stable Diffusion 1.
    std::unique_ptr<models::SmallDiffusers> other_ =
        kind() == "sdxl_directory"  ? std::make_unique<models::SmallDiffusers>("sdxl")
        : kind() == "sd3_directory" ? std::make_unique<models::SmallDiffusers>("sd3")
        : kind() == "dit_directory" ? std::make_unique<models::SmallDiffusers>("dit")
                                    : nullptr;
    std::string model_;
};

}  // namespace

TEST_P(EveryKind, has_every_feature) {
    sample();
    shards();
    serve();
    evaluate();
    quantize();
    benchmark();
    convert();
    python();
}

INSTANTIATE_TEST_SUITE_P(All, EveryKind, testing::ValuesIn(kinds),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace atelier::cli
