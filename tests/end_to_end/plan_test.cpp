#include <nlohmann/json.hpp>

#include <algorithm>

#include "end_to_end/images.h"

namespace atelier::end_to_end {
namespace {

using nlohmann::json;

std::vector<std::string> run_configs() {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(fs::path(ATELIER_SOURCE_DIR) / "configs")) {
        const bool of_run = text_of(entry.path()).find("[partition]") !=
                            std::string::npos;  // classifier.toml belongs to another command
        if (entry.path().extension() == ".toml" && of_run)
            found.push_back(entry.path().stem().string());
    }
    std::ranges::sort(found);
    return found;
}

json planned(const std::string& config, const Arguments& more = {}) {
    Arguments all{"run", config, "--dry-run", "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return json::parse(succeed(all).out);
}

class Recipes : public testing::TestWithParam<std::string> {};

TEST_P(Recipes, is_planned_without_data_and_teacher_and_fits) {
    const std::string path = "configs/" + GetParam() + ".toml";
    Arguments more{"--tflops", "100"};
    if (GetParam() == "fashion-mnist")
        more.insert(more.end(), {"data.path=not-here", "data.shape=[1,28,28]", "data.classes=10"});
    if (GetParam() == "captions")  // numbers of captions stand for classes
        more.insert(more.end(), {"data.path=not-here", "data.shape=[1,28,28]", "data.classes=64"});
    const json plan = planned(path, more);
    EXPECT_GT(plan.at("networks").size(), 1u);
    for (const json& stage : plan.at("stages")) {
        EXPECT_GT(stage.at("memory_bytes").get<double>(), 0);
        EXPECT_LE(stage.at("memory_bytes").get<double>(),
                  plan.at("device_memory_bytes").get<double>());
        EXPECT_GT(stage.at("flops_a_step").get<double>(), 0);
        EXPECT_GT(stage.at("seconds").get<double>(), 0);
    }
    Arguments stated{"run",
                     path,
                     "--dry-run",
                     "--tflops",
                     "100",
                     "data.shape=" + plan.at("data_shape").dump(),
                     "data.classes=" + plan.at("classes").dump()};
    if (GetParam() == "captions") stated.emplace_back("data.path=not-here");
    expect_contains(succeed(stated).out, "in all");
}

INSTANTIATE_TEST_SUITE_P(Every, Recipes, testing::ValuesIn(run_configs()), [](const auto& info) {
    std::string name = info.param;
    for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
    return name;
});

TEST(Recipes, have_the_networks_of_the_paper) {
    const auto parameters = [](const std::string& config) {
        return planned("configs/" + config + ".toml").at("networks");
    };
    EXPECT_EQ(parameters("imagenet64-msd4-adm")[0].at("parameters"), 295'899'267);
    EXPECT_EQ(parameters("imagenet64-msd4-adm")[1].at("parameters"), 295'899'267);
    EXPECT_NEAR(parameters("imagenet64-msd4-small")[1].at("parameters").get<double>(), 172.8e6,
                0.1e6);
    EXPECT_NEAR(parameters("imagenet64-msd4-smaller")[1].at("parameters").get<double>(), 85.9e6,
                0.1e6);
}

/// The stages of a plan by name.
std::map<std::string, json> stages_of(const json& plan) {
    std::map<std::string, json> stages;
    for (const json& stage : plan.at("stages")) stages[stage.at("stage")] = stage;
    return stages;
}

TEST(Plan, ranks_share_whole_micro_batches_and_sum_every_update) {
    const json plan = planned("configs/imagenet64-msd4-adm.toml",
                              {"--tflops", "200", "--ranks", "16", "--link", "100"});
    EXPECT_EQ(plan.at("ranks"), 16);
    const json dm = stages_of(plan).at("dm"), ranks = dm.at("ranks");
    EXPECT_EQ(ranks.at("micro_batches"), 7);  // 280 in 40s
    EXPECT_EQ(ranks.at("micro_batches_of_the_busiest"), 1);
    EXPECT_EQ(ranks.at("idle"), 9);
    EXPECT_EQ(ranks.at("even_micro_batch"), 18);
    EXPECT_EQ(ranks.at("sums_a_step"), 6);
    const double each = dm.at("seconds_a_step").get<double>() / 7,
                 sums = 6 * 2 * 15.0 / 16 * ranks.at("bytes_a_sum").get<double>() / 100e9;
    EXPECT_EQ(ranks.at("bytes_a_sum"),
              plan.at("networks").at(1).at("parameters").get<double>() * 8);
    EXPECT_NEAR(ranks.at("seconds_of_sums").get<double>(), sums, 1e-9);
    EXPECT_NEAR(ranks.at("seconds_a_step_without_overlap").get<double>(), each + sums, 1e-9);
    EXPECT_NEAR(ranks.at("seconds_a_step").get<double>(), each + std::max(0.0, sums - each / 2),
                1e-9);
    const std::string text = succeed({"run", "configs/imagenet64-msd4-adm.toml", "--dry-run",
                                      "--tflops", "200", "--ranks", "2"})
                                 .out;
    expect_contains(text,
                    "on 2 GPUs: 4 of 7 micro-batches for the busiest (dm.micro_batch = 35 divides "
                    "them evenly); 6 sums of 2.37 GB per generator update");
    EXPECT_FALSE(stages_of(planned("configs/imagenet64-msd4-adm.toml")).at("dm").contains("ranks"));
    EXPECT_EQ(run({"run", "configs/toy2d.toml", "--ranks", "2"}).code, 2);
}

TEST(Plan, of_ranks_that_share_out_the_optimiser_needs_less_memory) {
    const auto bytes = [](const std::vector<std::string>& more) {
        return stages_of(planned("configs/imagenet64-msd4-adm.toml", more))
            .at("dm")
            .at("memory_bytes")
            .get<double>();
    };
    const double whole = bytes({"--tflops", "200", "--ranks", "4"}),
                 shared = bytes({"--tflops", "200", "--ranks", "4", "optimizer_sharding=true"});
    // Two moments and two averages of the student, two moments of the fake score, in float32.
    const double state = (4 + 2) * 4 * 295'899'267.0;
    EXPECT_NEAR(whole - shared, 0.75 * state, 0.02 * state);
    EXPECT_EQ(bytes({"--tflops", "200", "optimizer_sharding=true"}), bytes({"--tflops", "200"}));
}

TEST(Recipes, count_generator_updates) {
    for (const auto& [config, dm, adm, fake] :
         {std::tuple{"imagenet64-msd4-adm", 81000, 28500, 5}, {"sd15-msd4-adm", 3900, 200, 10}}) {
        const auto stages = stages_of(planned(std::string("configs/") + config + ".toml"));
        EXPECT_EQ(stages.at("dm").at("steps"), dm) << config;
        EXPECT_EQ(stages.at("adm").at("steps"), adm) << config;
        for (const char* stage : {"dm", "adm"})
            EXPECT_EQ(stages.at(stage).at("fake_updates"), fake) << config;
    }
    const json cifar = planned("configs/cifar10-msd.toml").at("stages").at(0);
    EXPECT_EQ(cifar.at("steps"), 20000);
    EXPECT_EQ(cifar.at("fake_updates"), 4);
    EXPECT_EQ(cifar.at("batch"), 2048);
    const json pairs = planned("configs/imagenet64-msd4-pairs.toml").at("stages").at(0);
    EXPECT_EQ(pairs.at("steps"), 20000);
    EXPECT_EQ(pairs.at("fake_updates"), 1);
    EXPECT_EQ(pairs.at("batch"), 336);
}

TEST(Recipes, need_the_compute_of_dmd2) {
    const std::string config = "configs/imagenet64-msd4-adm.toml";
    double work = 0;
    const json plan = planned(config);
    for (const json& stage : plan.at("stages"))
        work += stage.at("steps").get<double>() * stage.at("flops_a_step").get<double>();
    EXPECT_NEAR(work, 177e18, 2e18);
    const std::string out = succeed({"run", config, "--dry-run"}).out;
    expect_contains(
        out,
        "81000 generator updates of 280 samples, 40 per micro-batch; 5 of the fake score per "
        "generator update");
    expect_contains(out, "28500 generator updates");
    expect_contains(out, "176.3 EFLOP per student");
}

TEST(Recipes, only_claim_an_fid_for_the_pairs_recipe) {
    for (const auto& entry :
         fs::recursive_directory_iterator(fs::path(ATELIER_SOURCE_DIR) / "configs")) {
        const std::string text = text_of(entry.path());
        const bool claims = text.find("2.37") != std::string::npos;
        EXPECT_EQ(claims, entry.path().filename() == "imagenet64-msd4-pairs.toml") << entry.path();
    }
}

TEST(DryRun, does_not_report_text_width_as_classes) {
    const Folder folder;
    write_captioned(folder / "images", 8);
    const std::string data = "data.path=" + folder / "images";
    const std::string captions =
        succeed({"run", "configs/captions.toml", data, "--dry-run", "--tflops", "1"}).out;
    expect_contains(captions, "captions embedded in 64 values");
    EXPECT_EQ(captions.find("64 classes"), std::string::npos) << captions;
    EXPECT_EQ(planned("configs/captions.toml", {data, "--tflops", "1"}).at("classes"), 0);
    const std::string diffusers = succeed({"run", "configs/sd15-msd4-dm.toml", "--dry-run"}).out;
    expect_contains(diffusers, "captions embedded in 768 values");
    EXPECT_EQ(diffusers.find("classes"), std::string::npos) << diffusers;
    const json teacher = json::parse(succeed({"inspect", "models/captions/teacher", "--json"}).out);
    EXPECT_EQ(teacher.at("text_width"), 64);
    EXPECT_FALSE(teacher.contains("classes"));
}

TEST(Recipes, single_ones_see_as_many_images_as_their_ensembles) {
    for (const auto& [many, one] : {std::pair{"imagenet64-msd4-dm", "imagenet64-single-dm"},
                                    {"imagenet64-msd4-adm", "imagenet64-single-adm"},
                                    {"imagenet64-msd4-small", "imagenet64-single-small"},
                                    {"cifar10-msd", "cifar10-single"}}) {
        const auto work = [](const std::string& config) {
            double sum = 0;
            const json plan = planned("configs/" + config + ".toml");
            for (const json& stage : plan.at("stages")) {
                sum += stage.at("times").get<double>() * stage.at("steps").get<double>() *
                       stage.at("flops_a_step").get<double>();
            }
            return sum;
        };
        EXPECT_NEAR(work(one) / work(many), 1, 1e-9) << one;
    }
}

TEST(DryRun, writes_nothing_and_measures_a_step_of_small_networks) {
    const Folder folder;
    Arguments arguments = tiny("run", folder / "run", {"--dry-run", "--json"});
    const json plan = json::parse(succeed(arguments).out);
    EXPECT_EQ(folder.files(), 0u);
    ASSERT_EQ(plan.at("stages").size(), 3u);
    for (const json& stage : plan.at("stages"))
        EXPECT_EQ(stage.at("seconds_from"), "a step, measured");
    EXPECT_EQ(plan.at("stages")[1].at("times"), 2);
    EXPECT_EQ(plan.at("stages")[1].at("generated_images"), 12 * 32 * 3);
}

TEST(DryRun, rejects_what_does_not_fit_and_suggests_what_to_lower) {
    const Outcome outcome = run({"run", "configs/imagenet64-msd4-dm.toml", "--dry-run",
                                 "--device-memory", "24", "dm.micro_batch=0"});
    EXPECT_EQ(outcome.code, 2);
    expect_contains(outcome.err, "dm of students 0, 1, 2, 3 needs");
    expect_contains(outcome.err, "lower dm.micro_batch to ");
    const std::string words = "lower dm.micro_batch to ";
    const int fits = std::stoi(outcome.err.substr(outcome.err.find(words) + words.size()));
    succeed({"run", "configs/imagenet64-msd4-dm.toml", "--dry-run", "--device-memory", "24",
             "dm.micro_batch=" + std::to_string(fits)});
    expect_contains(
        run({"run", "configs/imagenet64-msd4-dm.toml", "--dry-run", "--device-memory", "4"}).err,
        "take a smaller network");
}

TEST(DryRun, reports_what_it_cannot_know) {
    const Outcome outcome =
        run({"run", "configs/imagenet64-msd4-dm.toml", "--dry-run", "data.classes=-1"});
    EXPECT_EQ(outcome.code, 2);
    expect_contains(outcome.err, "set data.shape and data.classes");
    expect_contains(succeed({"run", "configs/imagenet64-msd4-dm.toml", "--dry-run"}).out,
                    "data/imagenet64.zip is not here; shape and classes are the config's");
}

/// Compares the memory planned for a CPU training step with the memory the process used: within
/// 15 % where it was measured, but what an allocator keeps differs.
TEST(DryRun, predicts_the_memory_of_a_training_step) {
    for (const Arguments& more : {Arguments{"--batch", "192"}, Arguments{"--batch", "128", "--gan"},
                                  Arguments{"--batch", "192", "--activation-checkpointing"}}) {
        Arguments arguments{
            "benchmark", "models/fashion-mnist/teacher", "--training", "--runs", "1", "--threads",
            "1"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        const json figures = json::parse(succeed(arguments).out);
        const double estimated = figures.at("estimated_peak_bytes"),
                     used = figures.at("peak_rss_bytes");
        EXPECT_GT(estimated, 0.75 * used) << figures.dump();
        EXPECT_LT(estimated, 1.5 * used) << figures.dump();
    }
}

TEST(MaxHours, stops_with_a_checkpoint_and_the_same_command_ends_with_the_same_bytes) {
    const Folder folder;
    succeed(tiny("run", folder / "whole", {"teacher.steps=400"}));
    Arguments limited = tiny("run", folder / "limited",
                             {"teacher.steps=400", "--max-hours", "0.00001"});  // 36 milliseconds
    const Outcome stopped = run(limited);
    EXPECT_EQ(stopped.code, 130);
    expect_contains(stopped.err, "run the same command again to go on");
    EXPECT_FALSE(fs::exists(folder.path() / "limited/ensemble"));
    succeed(tiny("run", folder / "limited", {"teacher.steps=400"}));
    EXPECT_EQ(weights_of(folder / "limited"), weights_of(folder / "whole"));
}

TEST(MicroBatches, half_precision_and_checkpointing_train_and_resume_to_the_same_bytes) {
    const Folder folder;
    write_images(folder / "pictures", 64, 8, 1);
    const auto small = [&](const std::string& output, const Arguments& more) {
        Arguments all = small_run(folder / "pictures");
        all.insert(all.end(),
                   {"device=cpu", "output=" + output, "precision=fp16",
                    "activation_checkpointing=true", "teacher.steps=6", "teacher.batch=8",
                    "teacher.micro_batch=3", "tsm.steps=4", "tsm.batch=8", "tsm.micro_batch=4",
                    "dm.steps=4", "dm.batch=6", "dm.micro_batch=2", "adm.steps=3", "adm.batch=6",
                    "adm.micro_batch=4", "checkpoint_seconds=0", "checkpoints_kept=1"});
        all.insert(all.end(), more.begin(), more.end());
        return all;
    };
    succeed(small(folder / "whole", {}));
    int stops = 0;
    for (; stops < 60; ++stops) {
        const Outcome outcome = run(small(folder / "pieces", {"--max-hours", "0.0002"}));
        if (outcome.code == 0) break;
        ASSERT_EQ(outcome.code, 130) << outcome.err;
    }
    EXPECT_GT(stops, 0) << "it was never stopped";
    EXPECT_EQ(weights_of(folder / "pieces"), weights_of(folder / "whole"));
    const json config = json::parse(text_of(folder / "whole/students/1/adm/config.json"));
    EXPECT_TRUE(config.at("weights").contains("model-ema-0.9999.safetensors"));
    EXPECT_TRUE(fs::exists(folder.path() / "whole/students/1/adm/model-ema-0.9999.safetensors"));
    std::size_t kept = 0;
    for (const auto& entry :
         fs::recursive_directory_iterator(folder.path() / "whole/students/0/adm"))
        kept += entry.path().filename().string().starts_with("step-") &&
                entry.path().extension() == ".safetensors";
    EXPECT_LE(kept, 1u);
    const Outcome changed = run(small(folder / "whole", {"dm.micro_batch=3"}));
    EXPECT_EQ(changed.code, 2);
    expect_contains(changed.err, "dm.micro_batch: 2 -> 3");
}

TEST(Import, of_a_folder_is_inspected_and_rejected_for_a_config_with_other_data) {
    const Folder folder;
    write_images(folder / "pictures", 32, 12, 1);
    succeed({"import", folder / "pictures", folder / "data.zip", "--size", "8"});
    const json about = json::parse(succeed({"inspect", folder / "data.zip", "--json"}).out);
    EXPECT_EQ(about.at("shape"), json({3, 8, 8}));
    EXPECT_EQ(about.at("histogram").size(), 8u);
    for (const auto& [name, count] : about.at("histogram").items()) EXPECT_EQ(count, 4) << name;

    const Arguments config{"run", "configs/imagenet64-msd4-dm.toml", "device=cpu",
                           "teacher.path=", "output=" + (folder / "run")};
    const auto rejected = [&](const Arguments& more) {
        Arguments all = config;
        all.insert(all.end(), more.begin(), more.end());
        const Outcome outcome = run(all);
        EXPECT_EQ(outcome.code, 2) << outcome.err;
        EXPECT_FALSE(fs::exists(folder.path() / "run"));
        return outcome.err;
    };
    expect_contains(rejected({"data.path=" + (folder / "data.zip"), "data.classes=8"}),
                    "samples are [3,8,8], but data.shape asks for [3,64,64]");
    expect_contains(rejected({"data.path=" + (folder / "data.zip"), "data.shape=[3,8,8]"}),
                    "has 8 classes, but data.classes asks for 1000");
    fs::create_directories(folder.path() / "flat");
    for (const auto& entry : fs::recursive_directory_iterator(folder.path() / "pictures/kind0"))
        fs::copy(entry.path(), folder.path() / "flat" / entry.path().filename());
    expect_contains(
        rejected({"data.path=" + (folder / "flat"), "data.shape=[3,12,12]", "data.classes=8"}),
        "is unlabelled, so its conditions cannot be split among 4 students");
    expect_contains(
        rejected({"data.path=" + (folder / "flat"), "data.shape=[]", "data.classes=-1"}),
        "is unlabelled");
}

}  // namespace
}  // namespace atelier::end_to_end
