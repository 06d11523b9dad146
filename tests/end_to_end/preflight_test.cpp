#include <nlohmann/json.hpp>

#include "end_to_end/images.h"

/// Checks before training, the dependencies of results, and stopping.
namespace atelier::end_to_end {
namespace {

using nlohmann::json;

json read(const fs::path& path) { return json::parse(text_of(path)); }

/// A classifier of eight classes of 8x8 colour images.
void make_classifier(const Folder& folder, const std::string& name, const Arguments& more = {}) {
    succeed(with(
        {"classifier", "configs/classifier.toml", "data.path=" + (folder / "pictures"),
         "output=" + (folder / name), "threads=1", "width=4", "features=4", "batch=8", "steps=2"},
        more));
}

/// A run on those images that takes seconds.
Arguments image_run(const std::string& command, const Folder& folder, const std::string& output,
                    const Arguments& more = {}) {
    return with({command,
                 "configs/pictures.toml",
                 "data.path=" + (folder / "pictures"),
                 "data.test_path=" + (folder / "test"),
                 "data.shape=[3,8,8]",
                 "output=" + (folder / output),
                 "precision=fp32",
                 "network.model_channels=8",
                 "network.patch_size=1",
                 "network.attention_resolutions=[]",
                 "partition.students=2",
                 "teacher.steps=6",
                 "teacher.batch=8",
                 "pairs.count=24",
                 "pairs.steps=2",
                 "dm.steps=4",
                 "dm.batch=4",
                 "probe.every=2",
                 "probe.sampler_every=0",
                 "probe.count=16",
                 "evaluate.count=16",
                 "evaluate.steps=2",
                 "evaluate.classifier=" + (folder / "c1")},
                more);
}

TEST(Identity, an_evaluation_is_repeated_when_its_settings_change_but_students_are_kept) {
    const Folder folder;
    succeed(tiny("run", folder / "run"));
    const auto weights = weights_of(folder / "run");
    const std::string first = text_of(folder / "run/evaluation.json");
    succeed(tiny("evaluate", folder / "run"));
    EXPECT_EQ(text_of(folder / "run/evaluation.json"), first) << "nothing had changed";
    for (const char* changed : {"evaluate.steps=4", "evaluate.count=100", "evaluate.seeds=2"}) {
        succeed(tiny("evaluate", folder / "run", {changed}));
        EXPECT_NE(text_of(folder / "run/evaluation.json"), first) << changed;
    }
    succeed(tiny("run", folder / "run", {"evaluate.steps=4"}));
    EXPECT_EQ(read(folder / "run/evaluation.json").at("models").at("teacher").at("evaluations"), 7);
    EXPECT_EQ(weights_of(folder / "run"), weights);
}

TEST(Identity, changed_held_out_data_repeat_the_evaluation) {
    const Folder folder;
    fs::copy_file(small_points(), folder / "test.safetensors");
    const Arguments more{"data.test_path=" + (folder / "test.safetensors")};
    succeed(tiny("run", folder / "run", more));
    const auto weights = weights_of(folder / "run");
    const std::string first = text_of(folder / "run/evaluation.json");
    std::string bytes = text_of(folder / "test.safetensors");
    std::swap(bytes[bytes.size() - 6500], bytes[bytes.size() - 6600]);  // of the points
    std::ofstream(folder / "test.safetensors", std::ios::binary) << bytes;
    succeed(tiny("run", folder / "run", more));
    EXPECT_NE(text_of(folder / "run/evaluation.json"), first);
    EXPECT_EQ(weights_of(folder / "run"), weights);
}

TEST(Identity, stages_depend_on_the_content_of_the_data_not_its_path) {
    const Folder folder;
    fs::copy_file(small_points(), folder / "points.safetensors");
    succeed(tiny("run", folder / "run", {"data.path=" + (folder / "points.safetensors")}));
    const auto weights = weights_of(folder / "run");
    fs::rename(folder / "points.safetensors", folder / "moved.safetensors");
    succeed(tiny("run", folder / "run", {"data.path=" + (folder / "moved.safetensors")}));
    EXPECT_EQ(weights_of(folder / "run"), weights);
    std::string bytes = text_of(folder / "moved.safetensors");
    std::swap(bytes[bytes.size() - 6500], bytes[bytes.size() - 6600]);
    std::ofstream(folder / "moved.safetensors", std::ios::binary) << bytes;
    const Outcome rejected =
        run(tiny("run", folder / "run", {"data.path=" + (folder / "moved.safetensors")}));
    EXPECT_EQ(rejected.code, 2);
    expect_contains(rejected.err, "data.path: its content has changed");
    expect_contains(rejected.err, "rm -r " + (folder / "run/teacher"));
}

TEST(Identity, students_depend_on_their_initial_weights) {
    const Folder folder;
    succeed(tiny("run", folder / "one", {"partition.students=1"}));
    const Arguments branched{"teacher.path=" + (folder / "one/teacher"),
                             "students.start=" + (folder / "one/students/0/dm"),
                             "pairs.path=" + (folder / "one/pairs")};
    succeed(tiny("run", folder / "two", branched));
    succeed(tiny("run", folder / "two", branched));
    fs::copy_file(folder / "one/students/0/adm/model.safetensors",
                  folder / "one/students/0/dm/model.safetensors",
                  fs::copy_options::overwrite_existing);
    const Outcome rejected = run(tiny("run", folder / "two", branched));
    EXPECT_EQ(rejected.code, 2);
    expect_contains(rejected.err, "students.start: its content has changed");
}

TEST(Identity, another_classifier_repeats_the_evaluation_and_the_selecting_one_is_a_dependency) {
    const Folder folder;
    write_images(folder / "pictures", 32, 8, 1);
    write_images(folder / "test", 16, 8, 2);
    make_classifier(folder, "c1");
    make_classifier(folder, "c2", {"seed=9"});
    succeed(image_run("run", folder, "run"));
    const auto weights = weights_of(folder / "run");
    const std::string first = text_of(folder / "run/evaluation.json");
    succeed(image_run("run", folder, "run", {"evaluate.classifier=" + (folder / "c2")}));
    EXPECT_EQ(weights_of(folder / "run"), weights);
    EXPECT_NE(text_of(folder / "run/evaluation.json"), first);
    succeed(image_run("run", folder, "run", {"evaluate.classifier="}));

    // The weights of the classifier that selected the students are changed in place: its evaluation
    // is repeated, and the students are stale.
    fs::copy_file(folder / "c2/classifier.safetensors", folder / "c1/classifier.safetensors",
                  fs::copy_options::overwrite_existing);
    const Outcome rejected = run(image_run("run", folder, "run"));
    EXPECT_EQ(rejected.code, 2);
    expect_contains(rejected.err, "students/0/dm: probe.classifier: its content has changed");
    EXPECT_EQ(run(image_run("run", folder, "run", {"probe.every=1"})).code, 2);
}

TEST(Identity, a_run_of_an_older_version_can_be_continued) {
    const Folder folder;
    succeed(tiny("run", folder / "run", {"teacher.p_mean=-1"}));
    const auto weights = weights_of(folder / "run");
    for (const auto& entry : fs::recursive_directory_iterator(folder.path() / "run")) {
        if (entry.path().filename() != "stage.json") continue;
        json stage = read(entry.path());
        for (const char* unknown : {"contents", "notes"}) stage.erase(unknown);
        stage["settings"].erase("probe");
        stage["settings"]["threads"] = 3;
        stage["settings"]["evaluate"]["classifier"] = "models/classifier";
        json& settings = stage["settings"];
        if (settings.contains("teacher")) {
            settings["teacher"]["level_mean"] = settings["teacher"].at("p_mean");
            settings["teacher"].erase("p_mean");
        }
        if (settings.contains("adm"))
            settings["adm"]["gan_weight"] = settings["adm"].at("gan_weight").dump();  // quoted
        std::ofstream(entry.path()) << stage.dump();
    }
    succeed(tiny("run", folder / "run", {"teacher.level_mean=-1"}));
    EXPECT_EQ(weights_of(folder / "run"), weights);
}

struct InvalidRun {
    const char* name;
    Arguments more;
    const char* message;
};

class Preflight : public testing::TestWithParam<InvalidRun> {};

/// Errors that would otherwise appear only after training.
TEST_P(Preflight, rejects_before_anything_is_trained) {
    const Folder folder;
    write_images(folder / "pictures", 32, 8, 1);
    write_images(folder / "test", 16, 8, 2);
    write_images(folder / "large", 16, 12, 2);
    fs::create_directories(folder.path() / "few");
    for (const char* kind : {"kind0", "kind1"})
        fs::copy(folder / ("test/" + std::string(kind)), folder / ("few/" + std::string(kind)),
                 fs::copy_options::recursive);
    std::ofstream(folder / "file") << "a file";
    make_classifier(folder, "c1");
    Arguments more = GetParam().more;
    for (std::string& word : more) {
        if (const auto at = word.find("FOLDER"); at != std::string::npos)
            word.replace(at, 6, folder.path().string());
    }
    const std::size_t before = folder.files();
    for (const char* command :
         {"run", "teacher", "partition", "pairs", "distill", "evaluate", "dry"}) {
        Arguments arguments =
            image_run(std::string(command) == "dry" ? "run" : command, folder, "run", more);
        if (std::string(command) == "dry") arguments.emplace_back("--dry-run");
        const Outcome outcome = run(arguments);
        EXPECT_TRUE(outcome.code == 1 || outcome.code == 2) << command << outcome.err;
        expect_contains(outcome.err, GetParam().message);
        EXPECT_FALSE(fs::exists(folder / "run")) << command;
        EXPECT_EQ(folder.files(), before) << command;
    }
}

INSTANTIATE_TEST_SUITE_P(
    Every, Preflight,
    testing::Values(
        InvalidRun{
            "no_test_data", {"data.test_path=FOLDER/none.zip"}, "none.zip: there is no such file"},
        InvalidRun{"test_data_of_another_size",
                   {"data.test_path=FOLDER/large"},
                   "held-out samples (data.test_path) are [3,12,12]"},
        InvalidRun{"test_data_of_fewer_classes", {"data.test_path=FOLDER/few"}, "in 2 classes"},
        InvalidRun{"no_classifier",
                   {"evaluate.classifier=FOLDER/none"},
                   "none: there is no classifier here"},
        InvalidRun{"a_classifier_of_other_images",
                   {"evaluate.classifier=models/classifier"},
                   "it reads images [1,28,28], the data's are [3,8,8]"},
        InvalidRun{"another_classifier_for_the_probes",
                   {"probe.classifier=models/classifier"},
                   "probe.classifier: models/classifier: it reads images"},
        InvalidRun{"no_classifier_to_regress_by",
                   {"evaluate.classifier=", "dm.regression=perceptual"},
                   "regression = \"perceptual\" compares images by a classifier's features"},
        InvalidRun{"an_output_that_is_a_file", {"output=FOLDER/file"}, "file: is not a folder"},
        InvalidRun{"an_output_that_cannot_be_made",
                   {"output=/proc/none"},
                   "/proc/none: cannot be written"},
        InvalidRun{"nothing_to_start_from", {"students.start=FOLDER/none"}, "students.start: "},
        InvalidRun{"pairs_that_are_not_there", {"pairs.path=FOLDER/none"}, "pairs.path: "},
        InvalidRun{"a_cell_without_pairs",
                   {"pairs.count=2", "pairs.filter=cell", "partition.students=8"},
                   "no pair would belong to the cell of student"},
        InvalidRun{"no_weights_for_lpips",
                   {"dm.regression=lpips", "lpips.backbone=FOLDER/none.pth"},
                   "none.pth"},
        InvalidRun{"a_partition_file_that_is_not_there",
                   {"partition.method=file", "partition.file=FOLDER/none.json"},
                   "none.json"},
        InvalidRun{"no_teacher", {"teacher.path=FOLDER/none"}, "none"},
        InvalidRun{"patches_that_do_not_fit", {"network.patch_size=3"}, "network.patch_size"}),
    [](const auto& test) { return test.param.name; });

TEST(Preflight, names_a_class_without_samples) {
    const Folder folder;
    std::string bytes = text_of(small_points());
    for (std::size_t at = bytes.size() - 800 * 8; at < bytes.size(); at += 8) {
        if (bytes[at] == 3) bytes[at] = 2;  // removes class 3
    }
    std::ofstream(folder / "points.safetensors", std::ios::binary) << bytes;
    for (const char* command : {"run", "teacher", "distill"}) {
        const Outcome outcome =
            run(tiny(command, folder / "run",
                     {"data.path=" + (folder / "points.safetensors"), "partition.students=8"}));
        EXPECT_NE(outcome.code, 0);
        expect_contains(outcome.err, "class 3 has no sample");
        EXPECT_FALSE(fs::exists(folder / "run"));
    }
}

TEST(Preflight, drops_a_mismatched_default_classifier_and_reports_the_features_used) {
    const Folder folder;
    write_images(folder / "pictures", 32, 8, 1);
    const Arguments small{"data.shape=[3,8,8]",   "network.model_channels=8",
                          "network.patch_size=1", "network.attention_resolutions=[]",
                          "teacher.steps=2",      "teacher.batch=4",
                          "teacher.lr=100",       "pairs.count=8",
                          "pairs.steps=1",        "dm.steps=1",
                          "dm.batch=2",           "partition.students=2",
                          "probe.count=4",        "evaluate.count=8",
                          "evaluate.steps=1",     "precision=fp32",
                          "threads=64",           "students.threads=32"};
    const Outcome outcome =
        succeed(with({"run", "configs/pictures.toml", "data.path=" + (folder / "pictures"),
                      "data.test_path=", "output=" + (folder / "run")},
                     small));
    expect_contains(
        outcome.err,
        "evaluate.classifier is left out (runs/pictures-classifier: there is no classifier here");
    expect_contains(outcome.err, "the models are measured against the training data");
    expect_contains(outcome.err, "teacher.lr = 100 is far above");
    expect_contains(outcome.err, "threads = 64: this process may use");
    expect_contains(outcome.err, "students.parallel x students.threads = 64: this process may use");
    const std::string log = text_of(folder / "run/log.txt");
    expect_contains(log, "measured against the training data");
    EXPECT_TRUE(read(folder / "run/evaluation.json").at("reference_is_training_data").get<bool>());
    const std::string page = text_of(folder / "run/report.html");
    expect_contains(page, "there were no held-out data");
    expect_contains(page, "<span>teacher: ");
    expect_contains(page, "kind3");
}

TEST(LongerTeacher, continues_when_its_steps_are_raised_and_names_stale_stages) {
    const Folder folder;
    succeed(tiny("teacher", folder / "run"));
    const auto before = weights_of(folder / "run");
    const Outcome longer = succeed(tiny("teacher", folder / "run", {"teacher.steps=60"}));
    expect_contains(longer.err, "teacher: goes on from step 40 to 60");
    EXPECT_NE(weights_of(folder / "run"), before);
    EXPECT_EQ(read(folder / "run/teacher/stage.json").at("settings").at("teacher").at("steps"), 60);
    const auto at_60 = weights_of(folder / "run");
    succeed(tiny("teacher", folder / "run", {"teacher.steps=60"}));
    EXPECT_EQ(weights_of(folder / "run"), at_60) << "it is finished";
    EXPECT_EQ(run(tiny("teacher", folder / "run", {"teacher.steps=50"})).code, 2)
        << "a teacher cannot be shortened";

    const Arguments sixty{"teacher.steps=60", "partition.students=1"};
    succeed(tiny("run", folder / "run", sixty));
    const Arguments eighty{"teacher.steps=80", "partition.students=1"};
    const Outcome rejected = run(tiny("run", folder / "run", eighty));
    EXPECT_EQ(rejected.code, 2);
    for (const char* part : {"pairs: was made from the teacher before its training continues",
                             "students/0/adm: ", "rm -r "})
        expect_contains(rejected.err, part);
    EXPECT_EQ(weights_of(folder / "run").at("teacher/model.safetensors"),
              at_60.at("teacher/model.safetensors"));
    expect_contains(succeed(tiny("teacher", folder / "run", eighty)).err,
                    "delete it to make it again: rm -r");
    EXPECT_EQ(run(tiny("run", folder / "run", eighty)).code, 2)
        << "results of the shorter teacher are stale for the longer one";
    for (const char* gone : {"pairs", "students", "ensemble"})
        fs::remove_all(folder.path() / "run" / gone);
    succeed(tiny("run", folder / "run", eighty));
}

TEST(LongerTeacher, interrupted_ends_like_an_uninterrupted_one) {
    const Folder folder;
    for (const char* name : {"whole", "parts"}) succeed(tiny("teacher", folder / name));
    succeed(tiny("teacher", folder / "whole", {"teacher.steps=600"}));
    int stops = 0;
    for (; stops < 100; ++stops) {
        const Outcome outcome =
            run(tiny("teacher", folder / "parts", {"teacher.steps=600", "--max-hours", "0.00005"}));
        if (outcome.code == 0) break;
        ASSERT_EQ(outcome.code, 130) << outcome.err;
    }
    EXPECT_GT(stops, 0);
    EXPECT_EQ(weights_of(folder / "parts"), weights_of(folder / "whole"));
}

TEST(LongerTeacher, continues_from_its_weights_without_a_checkpoint) {
    const Folder folder;
    succeed(tiny("teacher", folder / "run", {"teacher.steps=200"}));
    fs::remove_all(folder.path() / "run/teacher/training/checkpoints");
    const Outcome longer = succeed(tiny("teacher", folder / "run", {"teacher.steps=240"}));
    expect_contains(longer.err, "no checkpoint is left; it goes on from its weights");
    std::ifstream metrics(folder / "run/teacher/training/metrics.jsonl");
    std::string line, last;
    while (std::getline(metrics, line)) last = line;
    EXPECT_EQ(json::parse(last).at("step"), 240);
    EXPECT_LT(json::parse(last).at("loss").get<double>(), 1.0) << "it did not start from scratch";
}

class StopRequested : public testing::TestWithParam<std::pair<const char*, Arguments>> {};

TEST_P(StopRequested, a_command_ends_within_seconds) {
    const Folder folder;
    write_images(folder / "pictures", 200, 32, 1);
    Arguments arguments = GetParam().second;
    for (std::string& word : arguments) {
        if (const auto at = word.find("FOLDER"); at != std::string::npos)
            word.replace(at, 6, folder.path().string());
    }
    const Folder output;
    const Process process(arguments, output);
    // Loading its libraries takes a quarter of that; then it works.
    ASSERT_TRUE(soon([&] { return process.processor_seconds() > 1 || process.has_ended(); }));
    process.signal(SIGTERM);
    const auto start = std::chrono::steady_clock::now();
    const Outcome outcome = process.wait();
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 30)
        << "it ends within some seconds, or is ended, and other tests run beside it";
    const bool may_be_done = std::string(GetParam().first) ==
                             "dry_run";  // if the machine is fast, or so slow that nothing is timed
    EXPECT_TRUE(outcome.code == 130 || (may_be_done && outcome.code == 0))
        << outcome.code << outcome.err;
}

const Arguments large_step{"configs/imagenet64-msd4-dm.toml",
                           "device=cpu",
                           "precision=fp32",
                           "teacher.path=",
                           "data.path=FOLDER/pictures",
                           "data.shape=[3,32,32]",
                           "data.classes=8",
                           "threads=1",
                           "network.model_channels=64",
                           "output=FOLDER/run",
                           "teacher.batch=64",
                           "teacher.micro_batch=0"};

INSTANTIATE_TEST_SUITE_P(
    Every, StopRequested,
    testing::Values(
        std::pair{"run", with(with({"run"}, large_step), {"evaluate.classifier="})},
        std::pair{"dry_run",
                  with(with({"run"}, large_step), {"evaluate.classifier=", "--dry-run"})},
        std::pair{"classifier",
                  Arguments{"classifier", "configs/classifier.toml", "data.path=FOLDER/pictures",
                            "output=FOLDER/c", "steps=100000", "width=128", "batch=200"}},
        std::pair{"quantize", Arguments{"quantize", "models/fashion-mnist/k4", "--samples",
                                        "100000", "--out", "FOLDER/int8"}},
        std::pair{"benchmark", Arguments{"benchmark", "models/fashion-mnist/teacher", "--runs",
                                         "1000", "--batch", "64"}},
        std::pair{"sample", Arguments{"sample", "models/fashion-mnist/teacher", "--count", "100000",
                                      "--out", "FOLDER/pictures.npz"}},
        std::pair{"evaluate", Arguments{"evaluate", "models/fashion-mnist/teacher", "--data",
                                        "/usr/share/datasets/fashion-mnist", "--count", "10000",
                                        "--out", "FOLDER/metrics"}},
        std::pair{"import",
                  Arguments{"import", "FOLDER/pictures", "FOLDER/large.zip", "--size", "2048"}}),
    [](const auto& test) { return test.param.first; });

}  // namespace
}  // namespace atelier::end_to_end
