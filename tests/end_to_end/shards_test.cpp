#include <nlohmann/json.hpp>

#include "end_to_end/images.h"

/// Shards: processes that share a command's work, and together make what one process makes.
namespace atelier::end_to_end {
namespace {

const std::string ensemble = "models/fashion-mnist/k4-small";

/// Names and bytes of the files below a folder.
std::map<std::string, std::string> files_of(const std::string& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        if (entry.is_regular_file())
            files[entry.path().lexically_relative(folder).string()] = text_of(entry.path());
    }
    return files;
}

/// An evaluation without what depends on how busy the machine is.
nlohmann::json result_in(const std::string& file) {
    nlohmann::json results = nlohmann::json::parse(text_of(file));
    for (auto& [name, result] : results.at("models").items()) result.erase("latency");
    return results;
}

Arguments sample(const std::string& out, const Arguments& more = {}) {
    return with({"sample", ensemble, "--count", "40", "--seed", "5", "--out", out}, more);
}

TEST(Shards, of_sample_are_together_one_runs_pictures) {
    const Folder folder;
    succeed(sample(folder / "one"));
    for (const char* shard : {"2/3", "1/3", "3/3"})
        succeed(sample(folder / "three", {"--shard", shard}));
    const auto whole = files_of(folder / "one");
    EXPECT_EQ(whole.size(), 40U);
    EXPECT_EQ(files_of(folder / "three"), whole);

    // A shard that is done may be done again, and one that died in the middle.
    succeed(sample(folder / "three", {"--shard", "1/3"}));
    fs::remove(folder / "three/000003.png");
    fs::create_directory(folder /
                         "three/.files.abcdefghij.atelier.tmp");  // left by a killed process
    std::ofstream(folder / "three/.files.abcdefghij.atelier.tmp/000003.png") << "half";
    for (const char* shard : {"1/2", "2/2"}) succeed(sample(folder / "three", {"--shard", shard}));
    EXPECT_EQ(files_of(folder / "three"), whole);
}

const std::vector<Arguments> divisions{{"1/1"}, {"2/3", "3/3", "1/3"}};

TEST(Shards, of_one_and_of_three_are_the_bytes_of_one_process) {
    const Folder folder;
    succeed(tiny("teacher", folder / "teacher"));
    const auto all_of = [&](const std::string& name, const Arguments& shards) {
        const std::string run = folder / (name + "-run"), pictures = folder / (name + "-pictures"),
                          evaluation = folder / (name + "-evaluation");
        fs::copy(folder / "teacher", run, fs::copy_options::recursive);
        for (const std::string& shard : shards) {
            const Arguments words = shard.empty() ? Arguments{} : Arguments{"--shard", shard};
            succeed(tiny("pairs", run, words));
            succeed(sample(pictures, words));
        }
        succeed(tiny("run", run));
        fs::remove(run + "/evaluation.json");
        for (const std::string& shard : shards) {
            const Arguments words = shard.empty() ? Arguments{} : Arguments{"--shard", shard};
            succeed(tiny("evaluate", run, words));
        }
        auto pairs = files_of(run + "/pairs");
        pairs.erase(".lock");
        EXPECT_GT(pairs.size(), 3U);
        return std::tuple(pairs, files_of(pictures), result_in(run + "/evaluation.json"));
    };
    const auto whole = all_of("whole", {""});
    for (const Arguments& shards : divisions)
        EXPECT_EQ(all_of(fmt::format("{}", shards.size()), shards), whole) << shards.size();
}

TEST(Shards, of_sample_refuse_what_other_options_left) {
    const Folder folder;
    succeed(sample(folder / "out", {"--shard", "1/2"}));
    const auto before = files_of(folder / "out");
    const Outcome seed = run({"sample", ensemble, "--count", "40", "--seed", "6", "--out",
                              folder / "out", "--shard", "2/2"});
    EXPECT_EQ(seed.code, 2);
    expect_contains(seed.err, "was made with other options: its seed is 5, not 6");
    const Outcome fewer = run({"sample", ensemble, "--count", "20", "--seed", "5", "--out",
                               folder / "out", "--shard", "2/2"});
    EXPECT_EQ(fewer.code, 2);
    expect_contains(fewer.err, "is none of the 20 pictures");
    const Outcome weights = run({"sample", "models/fashion-mnist/k4", "--count", "40", "--seed",
                                 "5", "--out", folder / "out", "--shard", "1/2"});
    EXPECT_EQ(weights.code, 2);
    expect_contains(weights.err, "was made from other weights");
    EXPECT_EQ(files_of(folder / "out"), before);
    for (const char* file : {"grid.png", "all.npz"}) {
        const Outcome one_file = run(sample(folder / file, {"--shard", "1/2"}));
        EXPECT_EQ(one_file.code, 2);
        expect_contains(one_file.err, "is one file of all samples; name a folder");
    }
    const Outcome wrong = run(sample(folder / "new", {"--shard", "3/2"}));
    EXPECT_EQ(wrong.code, 2);
    expect_contains(wrong.err, "give r/W with r from 1 to W");
    EXPECT_FALSE(fs::exists(folder / "new"));
}

TEST(Shards, of_pairs_are_together_one_runs_store) {
    const Folder folder;
    for (const char* run : {"one", "two"}) succeed(tiny("teacher", folder / run));
    succeed(tiny("pairs", folder / "one"));
    const Outcome first = succeed(tiny("pairs", folder / "two", {"--shard", "1/2"}));
    expect_contains(first.err, "shard 1/2 is done");
    EXPECT_FALSE(fs::exists(folder / "two/pairs/manifest.json"));
    fs::remove(folder / "two/pairs/shard-00002.safetensors");  // as if killed
    succeed(tiny("pairs", folder / "two", {"--shard", "2/2"}));
    EXPECT_FALSE(fs::exists(folder / "two/pairs/manifest.json"));
    // Two processes do the last shard at once.
    const Folder outputs[2];
    const Arguments again = tiny("pairs", folder / "two", {"--shard", "1/2"});
    const Process a(again, outputs[0]), b(again, outputs[1]);
    for (const Process* each : {&a, &b}) EXPECT_EQ(each->wait().code, 0);
    auto whole = files_of(folder / "one/pairs"), shards = files_of(folder / "two/pairs");
    whole.erase(".lock");
    EXPECT_EQ(shards, whole);
    succeed(tiny("run", folder / "two"));  // uses them
}

TEST(Shards, of_evaluate_are_together_one_runs_result) {
    const Folder folder;
    std::mt19937 random(3);
    for (int i = 0; i < 40; ++i) {
        core::Image image = synthetic_image(28, i % 8, random);
        for (std::size_t p = 0; p < image.pixels.size() / 3; ++p)
            image.pixels[p] = image.pixels[3 * p];
        image.pixels.resize(image.pixels.size() / 3);
        image.channels = 1;
        core::write_png(fs::path(folder / "images") / (std::to_string(100 + i) + ".png"), image);
    }
    // Three draws are three parts, and the reference is one.
    const auto evaluate = [&](const std::string& out, const Arguments& more = {}) {
        return with({"evaluate", ensemble, "--data", folder / "images", "--split", "train",
                     "--classifier", "", "--count", "50", "--seeds", "3", "--out", folder / out},
                    more);
    };
    succeed(evaluate("one"));
    const Outcome first = succeed(evaluate("two", {"--shard", "1/2"}));
    expect_contains(first.err, "shard 1/2 is done; 2 of 4 parts are there");
    EXPECT_FALSE(fs::exists(folder / "two/evaluation.json"));
    const Outcome other = run(evaluate("two", {"--shard", "2/2", "--seed", "8"}));
    EXPECT_EQ(other.code, 2);
    expect_contains(other.err, "holds parts of another evaluation");
    succeed(evaluate("two", {"--shard", "2/2"}));
    EXPECT_EQ(result_in(folder / "two/evaluation.json"), result_in(folder / "one/evaluation.json"));
    EXPECT_EQ(text_of(folder / "two/samples.png"), text_of(folder / "one/samples.png"));
    const auto before = files_of(folder / "two");
    EXPECT_EQ(before.size(), 2U) << "the parts are gone";
    succeed(evaluate("two", {"--shard", "1/2"}));
    EXPECT_EQ(files_of(folder / "two"), before);
}

TEST(Shards, of_a_runs_evaluation_are_together_one_runs_result) {
    const Folder folder;
    succeed(tiny("run", folder / "run"));
    const nlohmann::json whole = result_in(folder / "run/evaluation.json");
    fs::remove(folder / "run/evaluation.json");
    const Outcome first = succeed(tiny("evaluate", folder / "run", {"--shard", "2/2"}));
    expect_contains(first.err, "shard 2/2 is done; 1 of 2 parts are there");
    succeed(tiny("evaluate", folder / "run", {"--shard", "1/2"}));
    EXPECT_EQ(result_in(folder / "run/evaluation.json"), whole);
    EXPECT_FALSE(fs::exists(folder / "run/evaluation-parts"));
}

TEST(Shards, auto_and_students_take_their_number_from_a_job_array) {
    const Folder folder;
    ::setenv("JOB_COMPLETION_INDEX", "1", 1);
    succeed(sample(folder / "auto", {"--shard", "auto/2"}));
    const Outcome many = run(sample(folder / "auto", {"--shard", "auto"}));
    ::setenv("JOB_COMPLETION_INDEX", "7", 1);
    const Outcome student = run(tiny("distill", folder / "run", {"--student", "auto"}));
    ::unsetenv("JOB_COMPLETION_INDEX");
    EXPECT_EQ(many.code, 2);
    expect_contains(many.err, "write --shard auto/W");
    EXPECT_EQ(student.code, 2);
    expect_contains(student.err,
                    "--student auto: JOB_COMPLETION_INDEX 7 is out of range; this run has students "
                    "0 to 1");
    succeed(sample(folder / "second", {"--shard", "2/2"}));
    EXPECT_EQ(files_of(folder / "auto"), files_of(folder / "second"));
    const Outcome alone = run(tiny("distill", folder / "run", {"--student", "auto"}));
    EXPECT_EQ(alone.code, 2);
    expect_contains(alone.err, "this is no task of a job array");
    EXPECT_FALSE(fs::exists(folder / "run"));
}

TEST(Shards, auto_students_of_an_array_train_what_numbered_ones_do) {
    const Folder folder;
    succeed(tiny("run", folder / "whole"));
    for (const char* stage : {"teacher", "partition", "pairs"})
        succeed(tiny(stage, folder / "array"));
    for (const char* task : {"1", "0"}) {
        ::setenv("SLURM_ARRAY_TASK_ID", task, 1);
        succeed(tiny("distill", folder / "array", {"--student", "auto"}));
        ::unsetenv("SLURM_ARRAY_TASK_ID");
    }
    succeed(tiny("ensemble", folder / "array"));
    EXPECT_EQ(weights_of(folder / "array"), weights_of(folder / "whole"));
}

}  // namespace
}  // namespace atelier::end_to_end
