#include "end_to_end/program.h"

#include <cstring>

#include "atelier/conditions/partition.h"
#include "atelier/core/safetensors.h"

#include <nlohmann/json.hpp>

namespace atelier::end_to_end {
namespace {

nlohmann::json json_of(const std::string& path) { return nlohmann::json::parse(text_of(path)); }

TEST(Pipeline, one_command_makes_teacher_students_ensemble_metrics_and_report) {
    const Folder folder;
    succeed(tiny("run", folder / "run"));
    for (const char* made :
         {"teacher/model.safetensors", "partition.json", "pairs/manifest.json",
          "students/1/dm/model.safetensors", "students/1/adm/model.safetensors",
          "ensemble/ensemble.json", "evaluation.json", "report.html", "log.txt"}) {
        EXPECT_TRUE(fs::exists(folder.path() / "run" / made)) << made;
    }
    EXPECT_EQ(json_of(folder / "run/ensemble/ensemble.json").at("K"), 2);
    const auto models = json_of(folder / "run/evaluation.json").at("models");
    EXPECT_TRUE(models.contains("teacher") && models.contains("K=2 students"));

    // A second call does and changes nothing.
    const auto before = weights_of(folder / "run");
    succeed(tiny("run", folder / "run"));
    EXPECT_EQ(weights_of(folder / "run"), before);
}

TEST(Pipeline, stages_by_hand_and_students_as_processes_give_the_bytes_of_one_run) {
    const Folder folder;
    succeed(tiny("run", folder / "whole"));
    for (const char* stage : {"teacher", "partition", "pairs"})
        succeed(tiny(stage, folder / "parts"));
    succeed(tiny("distill", folder / "parts", {"--student", "1"}));
    succeed(tiny("distill", folder / "parts", {"--student", "0", "--stage", "dm"}));
    succeed(tiny("distill", folder / "parts", {"--student", "0", "--stage", "adm"}));
    succeed(tiny("ensemble", folder / "parts"));
    EXPECT_EQ(weights_of(folder / "parts"), weights_of(folder / "whole"));
}

TEST(Pipeline, a_run_needs_every_student_before_an_ensemble) {
    const Folder folder;
    for (const char* stage : {"teacher", "partition", "pairs"})
        succeed(tiny(stage, folder / "run"));
    succeed(tiny("distill", folder / "run", {"--student", "1"}));
    const Outcome outcome = run(tiny("ensemble", folder / "run"));
    EXPECT_EQ(outcome.code, 1);
    expect_contains(outcome.err, "student 0 is not finished");
    EXPECT_FALSE(fs::exists(folder.path() / "run/ensemble"));
}

TEST(Pipeline, students_may_differ_in_size_and_smaller_ones_pass_through_teacher_score_matching) {
    const Folder folder;
    const Outcome outcome = succeed(
        tiny("run", folder / "run", {"students.widths=[16,32]", "tsm.steps=10", "tsm.batch=32"}));
    EXPECT_TRUE(fs::exists(folder.path() / "run/students/0/tsm/model.safetensors"));
    EXPECT_FALSE(fs::exists(folder.path() / "run/students/1/tsm"));
    expect_contains(outcome.out + outcome.err,
                    "student 1: no teacher score matching; it has the teacher's architecture");
    EXPECT_LT(text_of(folder / "run/ensemble/students/0/model.safetensors").size(),
              text_of(folder / "run/ensemble/students/1/model.safetensors").size());
}

TEST(Pipeline, an_evaluated_teacher_is_not_evaluated_again) {
    const Folder folder;
    succeed(tiny("run", folder / "one"));
    const Arguments again{"teacher.path=" + (folder / "one/teacher"), "partition.students=1",
                          "dm.steps=2", "adm.steps=0"};
    succeed(tiny("run", folder / "two", again));
    const auto before = json_of(folder / "one/evaluation.json").at("models").at("teacher");
    auto taken = json_of(folder / "two/evaluation.json").at("models").at("teacher");
    EXPECT_EQ(taken.at("taken_from"), folder / "one/evaluation.json");
    taken.erase("taken_from");
    EXPECT_EQ(taken, before);

    Arguments other = again;
    other.emplace_back("evaluate.count=100");  // another protocol
    succeed(tiny("run", folder / "three", other));
    EXPECT_FALSE(json_of(folder / "three/evaluation.json")
                     .at("models")
                     .at("teacher")
                     .contains("taken_from"));

    std::ofstream(folder / "one/evaluation.json") << "{\"models\": [1";
    const Outcome outcome = succeed(tiny("run", folder / "four", again));
    expect_contains(outcome.err, "evaluation.json is not used");
}

TEST(Pipeline, students_can_branch_from_a_finished_stage_of_another_run) {
    const Folder folder;
    succeed(tiny("run", folder / "one", {"partition.students=1"}));
    succeed(tiny("run", folder / "branched",
                 {"teacher.path=" + (folder / "one/teacher"),
                  "students.start=" + (folder / "one/students/0/dm"),
                  "pairs.path=" + (folder / "one/pairs")}));
    succeed(
        tiny("run", folder / "plain",
             {"teacher.path=" + (folder / "one/teacher"), "pairs.path=" + (folder / "one/pairs")}));
    EXPECT_NE(text_of(folder / "branched/students/0/dm/model.safetensors"),
              text_of(folder / "plain/students/0/dm/model.safetensors"));
}

const Arguments with_trunk{"trunk.dm_steps=6", "trunk.adm_steps=4", "pairs.filter=\"cell\""};

Arguments together(Arguments first, const Arguments& second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

TEST(Pipeline, students_branch_from_a_trunk_of_all_conditions) {
    const Folder folder;
    const std::string run = folder / "run";
    succeed(tiny("run", run, with_trunk));
    const auto weights = weights_of(run);
    EXPECT_TRUE(weights.contains("trunk/dm/model.safetensors"));
    EXPECT_TRUE(weights.contains("trunk/adm/model.safetensors"));
    EXPECT_TRUE(fs::exists(run + "/trunk/adm/moments.safetensors"));
    // As from a stage of another run.
    succeed(tiny("run", folder / "branched",
                 {"students.start=" + run + "/trunk/adm", "pairs.filter=\"cell\""}));
    const auto branched = weights_of(folder / "branched");
    for (const char* student :
         {"students/0/adm/model.safetensors", "students/1/adm/model.safetensors"})
        EXPECT_EQ(weights.at(student), branched.at(student)) << student;
    // By hand, the students in processes of their own.
    const std::string parts = folder / "parts";
    for (const char* stage : {"teacher", "partition", "pairs"})
        succeed(tiny(stage, parts, with_trunk));
    const Outcome early =
        atelier::end_to_end::run(tiny("distill", parts, together(with_trunk, {"--student", "1"})));
    EXPECT_EQ(early.code, 1);
    expect_contains(early.err, "--student trunk");
    Outcome last;
    for (const char* student : {"trunk", "1", "0"})
        last = succeed(tiny("distill", parts, together(with_trunk, {"--student", student})));
    for (const char* learner : {"student", "fake_score"})
        expect_contains(last.err, std::string("student 0 dm: ") + learner +
                                      " goes on with its optimiser's moments");
    EXPECT_EQ(weights_of(parts + "/students"), weights_of(run + "/students"));
    // The trunk does not depend on how conditions are split.
    succeed(tiny("run", folder / "four",
                 together(with_trunk, {"partition.students=4", "students.parallel=2"})));
    EXPECT_EQ(weights_of(folder / "four/trunk"), weights_of(run + "/trunk"));
    const Outcome plan =
        succeed(tiny("run", run, together(with_trunk, {"--dry-run", "--json", "--tflops=1"})));
    expect_contains(plan.out, "\"who\":\"trunk\"");
    const Outcome status = succeed({"run", "--status", run});
    expect_contains(status.out, "trunk/adm");
    expect_contains(status.out, "finished");
}

TEST(Pipeline, another_trunk_makes_other_students) {
    const Folder folder;
    succeed(tiny("run", folder / "run", with_trunk));
    const Outcome outcome = run(tiny("run", folder / "run", {"trunk.dm_steps=7"}));
    EXPECT_EQ(outcome.code, 2);
    expect_contains(outcome.err, "trunk/dm");
    expect_contains(outcome.err, "trunk.dm_steps: 6 -> 7");
    expect_contains(outcome.err, folder / "run/students");
    expect_contains(run(tiny("distill", folder / "none", {"--student", "trunk"})).err,
                    "this run has no trunk");
    expect_contains(
        run(tiny("run", folder / "sizes", together(with_trunk, {"students.widths=[16,32]"}))).err,
        "students that branch from a trunk have its size");
}

TEST(Pipeline, low_rank_students_stand_on_the_trunk) {
    const Folder folder;
    const std::string run = folder / "run";
    const Arguments low_rank = together(with_trunk, {"students.lora_rank=2"});
    succeed(tiny("run", run, low_rank));
    const auto card = nlohmann::json::parse(text_of(run + "/students/0/adm/config.json"));
    EXPECT_EQ(card.at("lora").at("base"), "../../../trunk/adm");
    // The ensemble's base is the trunk, and the deltas have moved.
    succeed({"sample", run + "/ensemble", "--count", "8", "--out", folder / "samples.npz"});
    EXPECT_EQ(text_of(run + "/ensemble/base/model.safetensors"),
              text_of(run + "/trunk/adm/model.safetensors"));
    succeed({"sample", run + "/trunk/adm", "--count", "8", "--out", folder / "trunk.npz"});
    EXPECT_NE(text_of(folder / "samples.npz"), text_of(folder / "trunk.npz"));
}

TEST(Pipeline, a_stage_warms_its_critic_up_where_it_was_not_trained_beside_the_weights) {
    const Folder folder;
    const std::string words = "updates of the fake score alone first";
    const Outcome whole = succeed(tiny("run", folder / "one", {"partition.students=1"}));
    EXPECT_EQ((whole.out + whole.err).find(words),
              std::string::npos);  // a one-step critic, or one from the teacher
    const auto from = [&](const std::string& name, const std::string& start,
                          const Arguments& more = {}) {
        Arguments all{"partition.students=1",
                      "teacher.path=" + (folder / "one/teacher"),
                      "pairs.path=" + (folder / "one/pairs"),
                      "students.start=" + start,
                      "dm.steps=0",
                      "adm.steps=25"};
        all.insert(all.end(), more.begin(), more.end());
        const Outcome outcome = succeed(tiny("run", folder / name, all));
        return outcome.out + outcome.err;
    };
    EXPECT_EQ(from("same", folder / "one/students/0/adm").find(words), std::string::npos);

    fs::copy(folder / "one/students/0/adm",
             folder / "bare");  // like a foreign student, which has no critic
    fs::remove(folder / "bare/fake_score.safetensors");
    expect_contains(from("bare-start", folder / "bare/"), "3 " + words);
    EXPECT_EQ(from("bare-cold", folder / "bare", {"adm.critic_warmup=0"}).find(words),
              std::string::npos);
    expect_contains(from("same-warm", folder / "one/students/0/adm", {"adm.critic_warmup=7"}),
                    "7 " + words);
    EXPECT_NE(text_of(folder / "same-warm/students/0/adm/model.safetensors"),
              text_of(folder / "same/students/0/adm/model.safetensors"));
}

using HeadValues = std::map<std::string, std::vector<float>>;

/// The values of a critic's GAN head.
HeadValues head_in(const std::string& stage) {
    const core::SafetensorsFile file(fs::path(stage) / "fake_score.safetensors");
    HeadValues values;
    for (const auto& [name, entry] : file.entries()) {
        if (!name.starts_with("head.")) continue;
        const auto bytes = file.bytes(name);
        values[name].resize(bytes.size() / sizeof(float));
        std::memcpy(values[name].data(), bytes.data(), bytes.size());
    }
    return values;
}

double largest_difference(const HeadValues& a, const HeadValues& b) {
    double most = 0;
    for (const auto& [name, values] : a) {
        for (std::size_t i = 0; i < values.size(); ++i)
            most = std::max(most, std::abs(static_cast<double>(values[i]) - b.at(name).at(i)));
    }
    return most;
}

TEST(Pipeline, the_gan_head_travels_with_the_critic) {
    const Folder folder;
    succeed(tiny("run", folder / "one", {"partition.students=1"}));
    const auto head_after = [&](const std::string& name, const std::string& start,
                                const Arguments& more) {
        Arguments all{"partition.students=1",
                      "teacher.path=" + (folder / "one/teacher"),
                      "pairs.path=" + (folder / "one/pairs"),
                      "students.start=" + start,
                      "adm.steps=1",
                      "adm.fake_updates=1",
                      "adm.fake_lr=1e-12",
                      "adm.fake_weight_decay=0",
                      "dm.steps=0"};
        all.insert(all.end(), more.begin(), more.end());
        succeed(tiny("run", folder / name, all));
        return head_in(folder / (name + "/students/0/adm"));
    };
    const HeadValues trained = head_in(folder / "one/students/0/adm");
    ASSERT_FALSE(trained.empty());
    const std::string adm = folder / "one/students/0/adm", dm = folder / "one/students/0/dm";
    EXPECT_LT(largest_difference(trained, head_after("adm", adm, {})), 1e-6);
    EXPECT_LT(largest_difference(trained, head_after("by-dm", adm, {"dm.steps=2"})),
              1e-6);  // DM does not use the head but keeps it
    EXPECT_GT(largest_difference(trained, head_after("fresh", dm, {})), 1e-4);
}

TEST(Pipeline, the_teacher_has_a_row_for_every_requested_sampler) {
    const Folder folder;
    succeed(
        tiny("run", folder / "run", {"evaluate.samplers=[\"heun:4\",\"stochastic:6,S_churn=3\"]"}));
    const auto evaluation = json_of(folder / "run/evaluation.json");
    EXPECT_EQ(evaluation.at("order"), nlohmann::json({"teacher", "K=2 students", "teacher, heun:4",
                                                      "teacher, stochastic:6,S_churn=3"}));
    const auto& models = evaluation.at("models");
    EXPECT_EQ(models.at("teacher, heun:4").at("evaluations"), 7);
    EXPECT_EQ(models.at("teacher, stochastic:6,S_churn=3").at("protocol").at("model").at("sampler"),
              "stochastic,S_churn=3,S_min=0.05,S_max=50,S_noise=1.003");
    EXPECT_EQ(run(tiny("run", folder / "wrong", {"evaluate.samplers=[\"one-step\"]"})).code, 2);
    EXPECT_FALSE(fs::exists(folder.path() / "wrong"));
}

class Losses : public testing::TestWithParam<Arguments> {};

TEST_P(Losses, train_to_an_ensemble) {
    const Folder folder;
    const Outcome outcome = succeed(tiny("run", folder / "run", GetParam()));
    EXPECT_TRUE(fs::exists(folder.path() / "run/ensemble/ensemble.json"));
    static const auto usual = [] {
        const Folder other;
        succeed(tiny("run", other / "run"));
        return weights_of(other / "run");
    }();
    const auto weights = weights_of(folder / "run");
    if (GetParam().front() == "dm.keep_best=false") return;  // the last ones may be the best
    int changed = 0;
    for (int k = 0; k < 2; ++k) {
        const std::string student = "ensemble/students/" + std::to_string(k) + "/model.safetensors";
        changed += weights.at(student) != usual.at(student);
    }
    // bf16 is float32 on a processor without instructions for it, which the program says.
    const bool same = outcome.err.find("computing in float32") != std::string::npos;
    EXPECT_EQ(changed == 0, same) << "the key changed nothing, or against its message something";
}

INSTANTIATE_TEST_SUITE_P(
    Every, Losses,
    testing::Values(
        Arguments{"dm.regression=none", "adm.regression=none", "pairs.count=0"},
        Arguments{"pairs.filter=all"}, Arguments{"dm.loss=sid", "adm.loss=sid"},
        Arguments{"adm.gan_weight=auto", "adm.r1_weight=0.1"},
        Arguments{"adm.divergence=forward_kl"}, Arguments{"adm.divergence=jensen_shannon"},
        Arguments{"adm.divergence=squared_hellinger"},
        Arguments{"adm.divergence=softened_reverse_kl"}, Arguments{"adm.divergence=jeffreys"},
        Arguments{"dm.steps=0"}, Arguments{"adm.steps=0"},
        Arguments{"dm.keep_best=false", "adm.keep_best=false"}, Arguments{"precision=bf16"},
        Arguments{"teacher.noise=flow"}, Arguments{"teacher.noise=flow", "dm.loss=sid"}));

class Partitions : public testing::TestWithParam<std::string> {};

std::vector<std::string> methods_without_a_file() {
    std::vector<std::string> methods = conditions::partition_methods();
    std::erase_if(methods, [](const std::string& method) {
        return conditions::needs_of(method) == conditions::PartitionNeeds::file;
    });
    return methods;
}

TEST_P(Partitions, give_every_class_one_owner) {
    const Folder folder;
    succeed(tiny("teacher", folder / "run"));
    succeed(tiny("partition", folder / "run",
                 {"partition.method=" + GetParam(), "partition.students=3"}));
    const auto owner = json_of(folder / "run/partition.json").at("owner").get<std::vector<int>>();
    ASSERT_EQ(owner.size(), 8u);
    std::vector<int> sizes(3);
    for (const int student : owner) ++sizes.at(static_cast<std::size_t>(student));
    for (const int size : sizes) EXPECT_GT(size, 0);
}

INSTANTIATE_TEST_SUITE_P(Every, Partitions, testing::ValuesIn(methods_without_a_file()));

TEST(Pipeline, budgets_follow_the_cells_in_training_status_and_identity) {
    const Folder folder;
    std::ofstream(folder / "cells.json") << R"({"owner": [0, 0, 0, 1, 1, 0, 0, 0]})";
    const Arguments split{"partition.method=file", "partition.file=" + (folder / "cells.json"),
                          "dm.steps=20", "students.budget=prior", "log_every=1"};
    const Outcome outcome = succeed(tiny("run", folder / "run", split));
    expect_contains(outcome.err, "dm updates of students 0 to 1, by students.budget: 30, 10");
    const auto steps_of = [&](const std::string& path) {
        const auto status =
            nlohmann::json::parse(succeed({"run", "--status", folder / "run", "--json"}).out);
        for (const auto& stage : status.at("stages")) {
            if (stage.at("stage") == path) return stage.at("steps").get<int>();
        }
        return -1;
    };
    const auto trained = [&](const std::string& path) {
        std::istringstream lines(text_of(folder / ("run/" + path + "/training/metrics.jsonl")));
        int last = 0;
        for (std::string line; std::getline(lines, line);)
            last = nlohmann::json::parse(line).at("step").get<int>();
        return last;
    };
    for (const auto& [path, steps] :
         {std::pair{"students/0/dm", 30}, {"students/1/dm", 10}, {"students/0/adm", 12}}) {
        EXPECT_EQ(steps_of(path), steps) << path;
        EXPECT_EQ(trained(path), steps) << path;
    }
    const auto before = weights_of(folder / "run");
    succeed(tiny("run", folder / "run", split));
    EXPECT_EQ(weights_of(folder / "run"), before);
    // A student alone, and students in processes of their own.
    for (const char* stage : {"teacher", "partition", "pairs"})
        succeed(tiny(stage, folder / "parts", split));
    succeed(tiny("distill", folder / "parts", together(split, {"--student", "1"})));
    succeed(tiny("run", folder / "parts", together(split, {"students.parallel=2"})));
    EXPECT_EQ(weights_of(folder / "parts"), before);

    Arguments by_difficulty = split;
    by_difficulty[3] = "students.budget=difficulty";
    const Outcome other = run(tiny("run", folder / "run", by_difficulty));
    EXPECT_EQ(other.code, 2);
    expect_contains(other.err, "students.budget: \"prior\" -> \"difficulty\"");
    succeed(tiny("run", folder / "hard", by_difficulty));
    EXPECT_TRUE(fs::exists(folder / "hard/difficulty.json"));
    const std::string plan =
        succeed(tiny("run", folder / "run", together(split, {"--dry-run", "--tflops=1"}))).out;
    expect_contains(plan, "10 to 30 (20 on average) generator updates");
    expect_contains(
        succeed(tiny("run", folder / "new", together(by_difficulty, {"--dry-run", "--tflops=1"})))
            .out,
        "known once the partition is made");
}

}  // namespace
}  // namespace atelier::end_to_end
