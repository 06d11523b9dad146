#include "atelier/pipeline/stages.h"

#include <algorithm>
#include <fstream>
#include <set>

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "core/test_folder.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;
using Kind = StageKind;
using Kinds = std::set<StageKind>;

const fs::path source{ATELIER_SOURCE_DIR};

/// Every stage's path, in order; students after the first are left out.
std::string described(const RunConfig& config) {
    std::vector<std::string> paths;
    for (const Stage& stage : stages(config)) {
        if (stage.student.value_or(0) == 0) paths.push_back(stage.path());
    }
    return fmt::format("{}", fmt::join(paths, " "));
}

nlohmann::json at(const nlohmann::json& values, const std::string& key) {
    std::string pointer = "/" + key;
    std::ranges::replace(pointer, '.', '/');
    return values.at(nlohmann::json::json_pointer(pointer));
}

/// Other values of a key to try, in TOML's syntax.
std::vector<std::string> other_values(const nlohmann::json& value) {
    if (value.is_boolean()) return {value.get<bool>() ? "false" : "true"};
    if (value.is_number_integer()) {
        const auto number = value.get<std::int64_t>();
        return {std::to_string(number + 1), std::to_string(number - 1), std::to_string(2 * number)};
    }
    if (value.is_number()) {
        const double number = value.get<double>();
        return {fmt::format("{}", number * 0.75 + 0.0625), fmt::format("{}", number / 2)};
    }
    if (value.is_array()) return {"[3]", "[0.5]", "[\"heun:7\"]"};
    return {
        "\"elsewhere\"", "\"bf16\"",  "\"cuda\"", "\"mlp\"",   "\"random\"",
        "\"cell\"",      "\"sid\"",   "\"none\"", "\"kl\"",    "\"jensen_shannon\"",
        "\"alex\"",      "\"float\"", "\"flow\"", "\"prior\"",
    };
}

/// A config in which nothing is disabled: every stage runs, and all their keys matter.
class EveryKey : public testing::Test {
protected:
    void SetUp() override {
        std::ofstream(path_) << R"(
output = "run"
[data]
path = "toy:ring"
[network]
architecture = "adm_unet"
[teacher]
condition_dropout = 0.1
[partition]
method = "balanced"
[pairs]
count = 100
[students]
widths = [16]
[dm]
regression = "lpips"
[adm]
regression = "lpips"
[lpips]
backbone = "vgg.safetensors"
[probe]
every = 10
)";
        base_ = load_config(path_.string(), {});
    }

    LoadedConfig with(const std::string& override_text) const {
        return load_config(path_.string(), {override_text});
    }

    /// The config with another value of a key.
    LoadedConfig changed(const std::string& key) const {
        RunConfig config = base_.config;
        const nlohmann::json before = at(schema_of(config).values(), key);
        std::string problems;
        for (const std::string& value : other_values(before)) {
            try {
                LoadedConfig loaded = with(key + "=" + value);
                if (at(schema_of(loaded.config).values(), key) != before) return loaded;
            } catch (const core::Error& problem) {
                problems += std::string("\n") + problem.what();
            }
        }
        throw core::Error(key + ": no other value is valid" + problems);
    }

    /// The stages whose folders, begun with the base config, are refused with another one.
    Kinds stale(const LoadedConfig& now) const {
        Kinds kinds;
        for (const StageKind kind : stage_kinds) {
            const auto identity = [&](const LoadedConfig& of) {
                return training::StageIdentity{.settings = of.values_of(kind),
                                               .defaults = of.defaults,
                                               .former_keys = of.former_keys};
            };
            const fs::path folder = folder_ / name_of(kind);
            fs::remove_all(folder);
            training::StageFolder(folder, identity(base_)).begin();
            if (!training::StageFolder::differences(folder, identity(now)).empty())
                kinds.insert(kind);
        }
        return kinds;
    }

    static Kinds stages_with(const std::string& key, const RunConfig& config) {
        Kinds kinds;
        for (const Stage& stage : stages(config)) {
            if (std::ranges::find(stage.keys, key) != stage.keys.end()) kinds.insert(stage.kind);
        }
        return kinds;
    }

    core::TestFolder folder_;
    fs::path path_ = folder_ / "run.toml";
    LoadedConfig base_;
};

const Kinds every_stage{Kind::teacher, Kind::partition, Kind::pairs,     Kind::tsm,
                        Kind::dm,      Kind::adm,       Kind::evaluation},
    with_teacher{Kind::teacher, Kind::pairs, Kind::tsm, Kind::dm, Kind::adm},
    trained{Kind::teacher, Kind::tsm, Kind::dm, Kind::adm},
    of_student{Kind::tsm, Kind::dm, Kind::adm}, matching{Kind::dm, Kind::adm}, nothing{};

/// What each key is meant to change, by the beginning of its name; the first that fits counts.
const std::vector<std::pair<std::string, Kinds>> meant{
    {"seed", {Kind::teacher, Kind::partition, Kind::pairs, Kind::tsm, Kind::dm, Kind::adm}},
    {"output", nothing},
    {"device_memory", nothing},
    {"device", nothing},
    {"deterministic", nothing},
    {"optimizer_sharding", nothing},
    {"reduction", trained},
    {"threads", nothing},
    {"precision", with_teacher},
    {"activation_checkpointing", trained},
    {"checkpoint", nothing},
    {"log_every", nothing},
    {"data.path", every_stage},
    {"data.test_path", {Kind::evaluation}},
    {"data.flips", trained},
    {"data.", nothing},
    {"network.", with_teacher},
    {"text.", with_teacher},
    {"teacher.noise",
     {Kind::teacher, Kind::partition, Kind::pairs, Kind::tsm, Kind::dm, Kind::adm}},
    {"teacher.flow_shift",
     {Kind::teacher, Kind::partition, Kind::pairs, Kind::tsm, Kind::dm, Kind::adm}},
    {"teacher.p_", {Kind::teacher, Kind::partition, Kind::pairs, Kind::tsm, Kind::dm, Kind::adm}},
    {"teacher.", with_teacher},
    {"partition.", {Kind::partition, Kind::tsm, Kind::dm, Kind::adm}},
    {"pairs.path", matching},
    {"pairs.filter", matching},
    {"pairs.", {Kind::pairs, Kind::dm, Kind::adm}},
    {"students.parallel", nothing},
    {"students.threads", nothing},
    {"students.budget", matching},
    {"students.steps", matching},
    {"students.", of_student},
    {"trunk.", matching},
    {"tsm.", of_student},
    {"dm.", matching},
    {"adm.", {Kind::adm}},
    {"lpips.", matching},
    {"probe.sampler_every", nothing},
    {"probe.batch", nothing},
    {"probe.", matching},
    {"evaluate.", {Kind::evaluation}},
};

}  // namespace

TEST_F(EveryKey, that_changes_makes_the_stages_stale_that_depend_on_it_and_no_others) {
    RunConfig all = base_.config;
    const auto keys = flat_keys(schema_of(all).values());
    EXPECT_GT(keys.size(), 90U);
    for (const std::string& key : keys) {
        const auto entry = std::ranges::find_if(
            meant, [&](const auto& each) { return key.starts_with(each.first); });
        ASSERT_NE(entry, meant.end()) << key << " is new: say here what depends on it";
        EXPECT_EQ(stages_with(key, base_.config), entry->second) << key;
        // A change of these would disable other keys' stages.
        if (key == "partition.method" || key.ends_with(".regression") || key == "students.start" ||
            key == "pairs.path")
            continue;
        try {
            EXPECT_EQ(stale(changed(key)), entry->second) << key;
        } catch (const core::Error& problem) {
            if (key != "teacher.path" && key != "students.lora_rank")
                ADD_FAILURE() << problem.what();
        }
    }
}

TEST_F(EveryKey, that_another_disables_makes_nothing_stale) {
    EXPECT_EQ(stages_with("lpips.network", with("dm.regression=none").config), matching)
        << "ADM's still needs it";
    const RunConfig without =
        load_config(path_.string(), {"dm.regression=none", "adm.regression=none"}).config;
    EXPECT_EQ(stages_with("lpips.network", without), nothing);
    EXPECT_EQ(stages_with("teacher.p_mean", with("partition.method=random").config), with_teacher);
    const RunConfig last =
        load_config(path_.string(), {"dm.keep_best=false", "adm.keep_best=false"}).config;
    EXPECT_EQ(stages_with("probe.count", last), nothing);
    EXPECT_EQ(stages_with("probe.count", with("adm.keep_best=false").config), matching)
        << "ADM starts from what DM chose";
}

TEST(Stages, of_every_shipped_config) {
    const std::string dm = "students/0/dm", adm = "students/0/adm", both = dm + " " + adm,
                      tsm = "students/0/tsm ", pairs = "pairs ";
    const std::map<std::string, std::string> expected{
        {"captions", both},
        {"cifar10-msd", adm},
        {"cifar10-single", adm},
        {"fashion-mnist", both},
        {"imagenet64-msd4-adm", both},
        {"imagenet64-msd4-dm", dm},
        {"imagenet64-msd4-pairs", pairs + dm},
        {"imagenet64-msd4-small", tsm + both},
        {"imagenet64-msd4-smaller", tsm + both},
        {"imagenet64-single-adm", both},
        {"imagenet64-single-dm", dm},
        {"imagenet64-single-small", tsm + both},
        {"pictures", pairs + dm},
        {"sd15-msd4-adm", both},
        {"sd15-msd4-dm", dm},
        {"sd15-msd4-small", tsm + both},
        {"spirals", pairs + tsm + both},
        {"study-toy", pairs + both},
        {"toy2d", pairs + both},
    };
    std::size_t runs = 0;
    for (const auto& entry : fs::directory_iterator(source / "configs")) {
        const std::string name = entry.path().stem();
        if (name.ends_with("classifier")) continue;  // no run
        ++runs;
        ASSERT_TRUE(expected.contains(name)) << name << " is new: say here what its stages are";
        EXPECT_EQ(
            described(load_config(entry.path().string(), {}).config),
            "teacher partition " + expected.at(name) + " ensemble evaluation.json report.html")
            << name;
    }
    EXPECT_EQ(runs, expected.size());
}

TEST(Stages, come_in_the_order_of_their_kinds_and_only_where_the_config_asks_for_them) {
    RunConfig config;
    config.partition.students = 3;
    const auto count = [&](Kind kind) {
        return std::ranges::count(stages(config), kind, &Stage::kind);
    };
    EXPECT_EQ(count(Kind::pairs), 0);
    EXPECT_EQ(count(Kind::tsm), 0);
    EXPECT_EQ(count(Kind::dm), 3);
    config.students.widths = {8};
    config.pairs.count = 1;
    EXPECT_EQ(count(Kind::pairs), 1);
    EXPECT_EQ(count(Kind::tsm), 3);
    const auto list = stages(config);
    for (std::size_t i = 1; i < list.size(); ++i) {
        const auto place = [](const Stage& stage) {
            return std::pair{stage.student.value_or(0), stage.kind};
        };
        if (list[i].student != list[i - 1].student) continue;
        EXPECT_LT(place(list[i - 1]), place(list[i]));
    }
    config.dm.steps = config.adm.steps = 0;
    EXPECT_THROW(last_student_stage(config), core::UsageError);
    config.adm.steps = 1;
    EXPECT_EQ(last_student_stage(config), Kind::adm);
    config.students.start = "elsewhere";
    EXPECT_EQ(count(Kind::tsm), 0);
}

TEST(Stages, say_what_they_train) {
    RunConfig config;
    config.dm.batch = 64;
    config.dm.micro_batch = 16;
    config.dm.fake_updates = 3;
    for (const Stage& stage : stages(config)) {
        EXPECT_EQ(stage.work.has_value(), stage.kind == Kind::teacher || stage.student.has_value());
        if (stage.kind != Kind::dm) continue;
        EXPECT_EQ(stage.work->micro_batch, 16);
        EXPECT_EQ(stage.work->fake_updates, 3);
        EXPECT_EQ(stage.work->steps, config.dm.steps);
    }
    config.teacher.path = "given";
    EXPECT_FALSE(stages(config).front().work.has_value());
}

TEST(StageKinds, have_names_and_paths) {
    for (const StageKind kind : stage_kinds) EXPECT_EQ(stage_kind_of(name_of(kind)), kind);
    EXPECT_THROW(stage_kind_of("polish"), core::Error);
    EXPECT_EQ(stage_path(Kind::dm, 3), "students/3/dm");
    EXPECT_EQ(stage_path(Kind::teacher), "teacher");
}

}  // namespace atelier::pipeline
