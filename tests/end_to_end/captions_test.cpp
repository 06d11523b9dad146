#include <nlohmann/json.hpp>

#include "end_to_end/images.h"

/// From captioned images to a text-conditional ensemble.
namespace atelier::end_to_end {
namespace {

Arguments tiny_run(const Folder& folder, const std::string& name) {
    return {"run",
            "configs/captions.toml",
            "data.path=" + folder / "images",
            "output=" + folder / name,
            "teacher.steps=12",
            "teacher.warmup=2",
            "teacher.batch=8",
            "network.model_channels=8",
            "text.width=16",
            "text.heads=2",
            "partition.students=2",
            "students.parallel=1",
            "dm.steps=2",
            "dm.batch=4",
            "adm.steps=2",
            "adm.batch=4",
            "probe.every=0",
            "probe.sampler_every=0",
            "probe.count=4",
            "evaluate.steps=2",
            "evaluate.count=16",
            "evaluate.classifier="};
}

TEST(Captions, a_run_produces_an_ensemble_that_takes_prompts) {
    const Folder folder;
    write_captioned(folder / "images", 200);
    Arguments arguments = tiny_run(folder, "run");
    arguments.emplace_back("students.budget=difficulty");
    const Outcome outcome = succeed(arguments);
    expect_contains(outcome.err, "dm updates of students 0 to 1, by students.budget: ");
    EXPECT_EQ(nlohmann::json::parse(text_of(folder / "run/difficulty.json")).at("losses").size(),
              2U)
        << "one per cell";
    expect_contains(outcome.err,
                    "evaluate.attributes is left out (models/captions/classifiers/"
                    "attributes.json: they are the config's, for other data)");
    const std::string ensemble = folder / "run/ensemble",
                      prompt = "two small white sneakers on black";
    const auto about = nlohmann::json::parse(succeed({"inspect", ensemble, "--json"}).out);
    EXPECT_EQ(about.at("condition"), "text");
    EXPECT_EQ(about.at("K"), 2);

    const Arguments sampling{"sample", ensemble, "--prompt", prompt,           "--count", "3",
                             "--seed", "5",      "--out",    folder / "a.png", "--json"};
    const auto sampled = nlohmann::json::parse(succeed(sampling).out);
    const std::string image = text_of(folder / "a.png");
    fs::remove(folder / "a.png");
    succeed(sampling);
    EXPECT_EQ(text_of(folder / "a.png"), image) << "the same bytes";
    expect_contains(image, prompt);

    const auto routed = nlohmann::json::parse(
        succeed({"route", ensemble, "--prompt", prompt, "--prompt", "", "--json"}).out);
    EXPECT_EQ(routed[0].at("student"), sampled.at("student"));
    const auto partition = nlohmann::json::parse(text_of(ensemble + "/partition/partition.json"));
    EXPECT_EQ(routed[1].at("student"), partition.at("null_owner"));

    succeed({"sample", folder / "run/teacher", "--prompt", prompt, "--sampler", "heun", "--steps",
             "2", "--guidance", "2", "--out", folder / "teacher.png"});
    expect_contains(text_of(folder / "run/report.html"), "captions of the training data");
    EXPECT_EQ(run({"sample", ensemble, "--class", "3", "--out", folder / "b.png"}).code, 2);
    EXPECT_EQ(
        run({"sample", "models/fashion-mnist/k4", "--prompt", prompt, "--out", folder / "b.png"})
            .code,
        2);
    EXPECT_FALSE(fs::exists(folder / "b.png"));
}

TEST(Captions, an_interrupted_run_ends_like_an_uninterrupted_one) {
    const Folder folder;
    write_captioned(folder / "images", 200);
    succeed(tiny_run(folder, "whole"));
    Arguments parts = tiny_run(folder, "parts");
    parts[0] = "teacher";
    parts.emplace_back("checkpoint_seconds=0");
    const Process first(parts, folder);
    const fs::path checkpoints = folder / "parts/teacher/training/checkpoints";
    ASSERT_TRUE(soon([&] { return fs::exists(checkpoints) || first.has_ended(); }));
    first.signal(SIGKILL);
    EXPECT_EQ(first.wait().code, 128 + SIGKILL);
    succeed(tiny_run(folder, "parts"));
    for (const char* file : {"teacher/model.safetensors", "teacher/text_encoder/model.safetensors",
                             "centroids.safetensors", "ensemble/students/1/model.safetensors"}) {
        EXPECT_EQ(text_of(fs::path(folder / "parts") / file),
                  text_of(fs::path(folder / "whole") / file))
            << file;
    }
}

TEST(ShippedCaptions, sample_immediately_and_keep_paraphrases_together) {
    const Folder folder;
    const std::string prompt = "two small white sneakers on black",
                      other = "two little white running shoes on black";
    succeed({"sample", "models/captions", "--prompt", prompt, "--count", "4", "--out",
             folder / "sneakers.png"});
    expect_contains(text_of(folder / "sneakers.png"), prompt);
    const auto routed = nlohmann::json::parse(
        succeed({"route", "models/captions", "--prompt", prompt, "--prompt", other, "--json"}).out);
    EXPECT_EQ(routed[0].at("student"), routed[1].at("student"));
    EXPECT_EQ(nlohmann::json::parse(succeed({"inspect", "models/captions", "--json"}).out).at("K"),
              4);
}

TEST(ShippedCaptions, are_evaluated_on_foreign_captions_without_attribute_metrics) {
    const Folder folder;
    write_captioned(folder / "own", 60);
    const Outcome outcome = succeed({"evaluate", "models/captions", "--data", folder / "own",
                                     "--count", "20", "--out", folder / "out"});
    const std::string written = text_of(folder / "out/evaluation.json");
    for (const char* word : {"garment", "place_agreement", "colour_agreement", "paraphrase"}) {
        EXPECT_EQ(written.find(word), std::string::npos) << word;
        EXPECT_EQ(outcome.out.find(word), std::string::npos) << word;
    }
    expect_contains(outcome.out, "pixel distance");
    expect_contains(outcome.out, "protocol atelier: 20 samples against 40 real ones");
    expect_contains(outcome.err, folder / "out/evaluation.json");
    const auto results = nlohmann::json::parse(written).at("models");
    const double real = results.at("real pictures").at("metrics").at("pixel_distance").at("mean"),
                 drawn =
                     results.at("models/captions").at("metrics").at("pixel_distance").at("mean");
    EXPECT_GT(real, 1e-6) << "no image is in its own reference";
    EXPECT_LT(real, drawn);

    const Outcome few = succeed({"evaluate", "models/captions", "--data", folder / "own", "--count",
                                 "40", "--out", folder / "few"});
    expect_contains(few.err, "too few to keep 40 of them out of the reference");
    EXPECT_FALSE(nlohmann::json::parse(text_of(folder / "few/evaluation.json"))
                     .at("models")
                     .contains("real pictures"));
}

TEST(ShippedCaptions, are_evaluated_on_foreign_captions_by_the_attributes_of_a_file) {
    const Folder folder;
    write_captioned(folder / "own", 60);
    const auto attributes = [&](const std::string& classifier, const nlohmann::json& values) {
        std::ofstream(folder / "attributes.json") << nlohmann::json{
            {"attributes",
             {{{"name", "brightness"},
               {"classifier",
                std::string(ATELIER_SOURCE_DIR "/models/captions/classifiers/") + classifier},
               {"values", values}}}},
            {"paraphrases",
             {{"a dark badge", "a dark badge"}, {"a bag", "a bag", "two white sneakers"}}}};
        return run({"evaluate", "models/captions", "--data", folder / "own", "--attributes",
                    folder / "attributes.json", "--count", "20", "--out", folder / "out"});
    };
    const nlohmann::json two{{"bright"}, {"dark", "dim"}};
    const Outcome outcome = attributes("colour", two);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const auto models = nlohmann::json::parse(text_of(folder / "out/evaluation.json")).at("models");
    for (const char* row : {"real pictures", "models/captions"}) {
        const double agreement = models.at(row).at("metrics").at("brightness_agreement").at("mean");
        EXPECT_TRUE(agreement >= 0 && agreement <= 1) << row << ": " << agreement;
        EXPECT_EQ(models.at(row).at("metrics").at("mean_agreement").at("mean"), agreement);
    }
    expect_contains(outcome.out, "brightness");
    const Outcome routed = succeed({"route", "models/captions", "--prompt", "a bag", "--prompt",
                                    "two white sneakers", "--json"});
    const auto owners = nlohmann::json::parse(routed.out);
    const bool apart = owners[0].at("student") != owners[1].at("student");
    EXPECT_EQ(models.at("models/captions").at("metrics").at("paraphrase_stability").at("mean"),
              apart ? 0.5 : 1.0)
        << "of four pairs, two are of equal captions";

    expect_contains(attributes("place", two).err, "knows 3 classes, the attribute has 2 values");
    expect_contains(attributes("nothing", two).err, "models/captions/classifiers/nothing");
    const Outcome classes =
        run({"evaluate", "models/fashion-mnist/k4", "--data", folder / "own", "--attributes",
             folder / "attributes.json", "--out", folder / "x"});
    EXPECT_EQ(classes.code, 2);
    expect_contains(classes.err, "--attributes is for models of captions");
}

TEST(Evaluate, reports_errors_before_evaluating) {
    const Folder folder;
    write_captioned(folder / "own", 12);
    std::ofstream(folder / "file") << "no folder";
    const Outcome unwritable = run({"evaluate", "models/captions", "--data", folder / "own",
                                    "--count", "4", "--out", folder / "file/out"});
    EXPECT_EQ(unwritable.code, 1);
    expect_contains(unwritable.err, folder / "file");
    EXPECT_EQ(unwritable.err.find("features"), std::string::npos) << unwritable.err;
    const Outcome unequal = run({"evaluate", "models/fashion-mnist/k4", "--data", folder / "own",
                                 "--classes", "equal", "--count", "101", "--out", folder / "x"});
    EXPECT_EQ(unequal.code, 2);
    expect_contains(unequal.err, "--count 100");
    EXPECT_EQ(run({"evaluate", "models/captions", "--data", folder / "own", "--classes", "iid",
                   "--out", folder / "x"})
                  .code,
              2);
    for (const char* protocol : {"edn", "dmd2"})
        EXPECT_EQ(run({"evaluate", "models/captions", "--data", folder / "own", "--protocol",
                       protocol, "--out", folder / "x"})
                      .code,
                  2);
    std::ofstream(folder / "captions.txt") << "a\nb\nc\nd\n";
    const Outcome missing =
        run({"evaluate", folder / "nowhere", "--captions", folder / "captions.txt", "--data",
             folder / "own", "--out", folder / "x"});
    EXPECT_EQ(missing.code, 1);
    expect_contains(missing.err, "there is no such model");
}

TEST(ShippedCaptions, are_rejected_by_class_only_commands) {
    const Folder folder;
    for (const Arguments& arguments :
         {Arguments{"quantize", "models/captions", "--out", folder / "int8"},
          {"sample", "models/captions", "--class", "1", "--out", folder / "x.png"},
          {"route", "models/captions", "--class", "1"}}) {
        const Outcome outcome = run(arguments);
        EXPECT_EQ(outcome.code, 2) << arguments[0];
        expect_contains(outcome.err, "reads prompts");
    }
    EXPECT_EQ(folder.files(), 0u);
}

TEST(Captions, invalid_options_are_rejected_before_anything_is_written) {
    const Folder folder;
    write_captioned(folder / "images", 200);
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
}

}  // namespace
}  // namespace atelier::end_to_end
