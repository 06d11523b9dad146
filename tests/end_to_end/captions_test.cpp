#include <nlohmann/json.hpp>

#include "end_to_end/program.h"

/// From captioned pictures to an ensemble that reads prompts.
namespace atelier::end_to_end {
namespace {

std::string big_endian(std::initializer_list<std::uint32_t> numbers) {
    std::string bytes;
    for (const std::uint32_t n : numbers) {
        for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(n >> shift & 255);
    }
    return bytes;
}

/// A folder of garments as IDX files: 200 blocks of ten shades.
void write_garments(const Folder& folder) {
    std::string images = big_endian({0x803, 200, 28, 28}), labels = big_endian({0x801, 200});
    for (int i = 0; i < 200; ++i) {
        for (int p = 0; p < 28 * 28; ++p) images += static_cast<char>(p % 28 < 4 + 2 * (i % 10) ? 60 + 19 * (i % 10) : 0);
        labels += static_cast<char>(i % 10);
    }
    for (const std::string split : {"train", "t10k"}) {
        std::ofstream(folder / (split + "-images-idx3-ubyte"), std::ios::binary) << images;
        std::ofstream(folder / (split + "-labels-idx1-ubyte"), std::ios::binary) << labels;
    }
}

Arguments tiny_run(const Folder& folder, const std::string& name) {
    return {"run", "configs/captions.toml", "data.path=captions:" + folder.path().string(), "output=" + folder / name, "teacher.steps=12", "teacher.warmup=2", "teacher.batch=8",
            "network.model_channels=8", "text.width=16", "text.heads=2", "partition.students=2", "students.parallel=1", "dm.steps=2", "dm.batch=4", "adm.steps=2", "adm.batch=4",
            "probe.every=0", "probe.sampler_every=0", "probe.count=4", "evaluate.steps=2", "evaluate.classifier=" + folder / "none"};
}

TEST(Captions, a_run_ends_with_an_ensemble_that_reads_prompts) {
    const Folder folder;
    write_garments(folder);
    succeed(tiny_run(folder, "run"));
    const std::string ensemble = folder / "run/ensemble", prompt = "two small white sneakers on black";
    const auto about = nlohmann::json::parse(succeed({"inspect", ensemble, "--json"}).out);
    EXPECT_EQ(about.at("condition"), "text");
    EXPECT_EQ(about.at("K"), 2);

    const Arguments sampling{"sample", ensemble, "--prompt", prompt, "--count", "3", "--seed", "5", "--out", folder / "a.png", "--json"};
    const auto told = nlohmann::json::parse(succeed(sampling).out);
    const std::string picture = text_of(folder / "a.png");
    fs::remove(folder / "a.png");
    succeed(sampling);
    EXPECT_EQ(text_of(folder / "a.png"), picture) << "the same bytes";
    expect_contains(picture, prompt);

    const auto routed = nlohmann::json::parse(succeed({"route", ensemble, "--prompt", prompt, "--prompt", "", "--json"}).out);
    EXPECT_EQ(routed[0].at("student"), told.at("student"));
    const auto partition = nlohmann::json::parse(text_of(ensemble + "/partition/partition.json"));
    EXPECT_EQ(routed[1].at("student"), partition.at("null_owner"));

    succeed({"sample", folder / "run/teacher", "--prompt", prompt, "--sampler", "heun", "--steps", "2", "--guidance", "2", "--out", folder / "teacher.png"});
    expect_contains(text_of(folder / "run/report.html"), "captions of the training grammar");
    EXPECT_EQ(run({"sample", ensemble, "--class", "3", "--out", folder / "b.png"}).code, 2);
    EXPECT_EQ(run({"sample", "models/fashion-mnist/k4", "--prompt", prompt, "--out", folder / "b.png"}).code, 2);
    EXPECT_FALSE(fs::exists(folder / "b.png"));
}

TEST(Captions, a_run_that_was_stopped_ends_as_one_that_was_not) {
    const Folder folder;
    write_garments(folder);
    succeed(tiny_run(folder, "whole"));
    Arguments parts = tiny_run(folder, "parts");
    parts[0] = "teacher";
    parts.emplace_back("checkpoint_seconds=0");
    const Process first(parts, folder);
    for (int i = 0; i < 600 && !fs::exists(folder / "parts/teacher/training/checkpoints"); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    first.signal(SIGKILL);
    first.wait();
    succeed(tiny_run(folder, "parts"));
    for (const char* file : {"teacher/model.safetensors", "teacher/text_encoder/model.safetensors", "centroids.safetensors", "ensemble/students/1/model.safetensors"}) {
        EXPECT_EQ(text_of(fs::path(folder / "parts") / file), text_of(fs::path(folder / "whole") / file)) << file;
    }
}

TEST(ShippedCaptions, draw_at_once_and_keep_paraphrases_together) {
    const Folder folder;
    const std::string prompt = "two small white sneakers on black", other = "two little white running shoes on black";
    succeed({"sample", "models/captions", "--prompt", prompt, "--count", "4", "--out", folder / "sneakers.png"});
    expect_contains(text_of(folder / "sneakers.png"), prompt);
    const auto routed = nlohmann::json::parse(succeed({"route", "models/captions", "--prompt", prompt, "--prompt", other, "--json"}).out);
    EXPECT_EQ(routed[0].at("student"), routed[1].at("student"));
    EXPECT_EQ(nlohmann::json::parse(succeed({"inspect", "models/captions", "--json"}).out).at("K"), 4);
}

TEST(ShippedCaptions, are_refused_where_only_classes_are_understood) {
    const Folder folder;
    for (const Arguments& arguments : {Arguments{"quantize", "models/captions", "--out", folder / "int8"},
                                       {"benchmark", "models/captions", "--runs", "1"}, {"sample", "models/captions", "--class", "1", "--out", folder / "x.png"},
                                       {"route", "models/captions", "--class", "1"}}) {
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.code, 2) << arguments[0];
        expect_contains(outcome.err, "reads prompts");
    }
    EXPECT_EQ(folder.files(), 0u);
}

TEST(Captions, what_cannot_be_is_refused_before_anything_is_written) {
    const Folder folder;
    write_garments(folder);
    Arguments arguments = tiny_run(folder, "run");
    arguments.emplace_back("partition.method=consecutive");
    Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, 2);
    expect_contains(outcome.err, "captions are split by");
    arguments = tiny_run(folder, "run");
    arguments.emplace_back("teacher.condition_dropout=0");
    outcome = run(arguments);
    EXPECT_EQ(outcome.code, 2);
    expect_contains(outcome.err, "teacher.condition_dropout");
    EXPECT_FALSE(fs::exists(folder / "run"));
    EXPECT_EQ(run({"inspect", "captions:shade:" + folder.path().string()}).code, 2);
}

}  // namespace
}  // namespace atelier::end_to_end
