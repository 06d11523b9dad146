#include <algorithm>
#include <cstdlib>

#include "atelier/core/atomic_file.h"
#include "atelier/core/json_file.h"
#include "atelier/core/signals.h"
#include "atelier/distillation/score_matching.h"
#include "atelier/models/model_directory.h"
#include "atelier/training/checkpoint.h"

#include "training/training_fixtures.h"

namespace atelier::training {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t steps = 12;

LoopSettings best_of(const fs::path& folder) {
    LoopSettings settings = every_step(folder);
    settings.keep_best = true;
    return settings;
}

LoopResult train(const LoopSettings& settings, Failures failures = {}) {
    SmallStage stage(steps, failures);
    return run_stage(stage, settings);
}

/// All outputs of two runs except their durations.
void expect_same_run(const LoopSettings& a, const LoopResult& of_a, const LoopSettings& b,
                     const LoopResult& of_b) {
    expect_same_bits(of_a.weights, of_b.weights);
    expect_same_bits(of_a.raw_weights, of_b.raw_weights);
    ASSERT_EQ(of_a.others.size(), of_b.others.size());
    for (const auto& [name, weights] : of_a.others) expect_same_bits(weights, of_b.others.at(name));
    EXPECT_EQ(of_a.best_step, of_b.best_step);
    EXPECT_EQ(of_a.best_distance, of_b.best_distance);
    auto last_a = CheckpointFolder(a.folder / "checkpoints").latest(),
         last_b = CheckpointFolder(b.folder / "checkpoints").latest();
    ASSERT_TRUE(last_a && last_b);
    expect_same_bits(last_a->tensors, last_b->tensors);
    last_a->scalars.erase("seconds");
    last_b->scalars.erase("seconds");
    EXPECT_EQ(last_a->scalars, last_b->scalars);
    EXPECT_EQ(lines_of(a.folder / "metrics.jsonl"), lines_of(b.folder / "metrics.jsonl"));
}

class Resume : public ::testing::Test {
protected:
    Resume()
        : whole(best_of(folder / "whole")),
          broken(best_of(folder / "broken")),
          expected(train(whole)) {}

    core::TestFolder folder;
    LoopSettings whole, broken;
    LoopResult expected;
};

TEST_F(Resume, a_run_killed_at_any_step_ends_with_the_bits_of_an_uninterrupted_one) {
    for (std::int64_t killed = 0; killed < steps; ++killed) {
        SCOPED_TRACE(killed);
        broken.folder = folder / ("broken-" + std::to_string(killed));
        EXPECT_THROW(train(broken, {.killed_at = killed}), std::runtime_error);
        expect_same_run(broken, train(broken), whole, expected);
    }
}

TEST_F(Resume, a_run_killed_while_its_critic_warms_up_ends_with_the_same_bits) {
    constexpr std::int64_t warmup = 5;
    const auto warmed = [&](const LoopSettings& settings, std::int64_t killed) {
        SmallStage stage(steps, {.killed_at = killed}, warmup);
        return run_stage(stage, settings);
    };
    whole.folder = folder / "whole-warmed";
    const LoopResult of_whole = warmed(whole, -1);
    EXPECT_NE(backends::hash_of(of_whole.raw_weights), backends::hash_of(expected.raw_weights));
    for (std::int64_t killed = steps; killed < steps + 3;
         ++killed) {  // warm-up updates have step numbers beyond the stage's end
        SCOPED_TRACE(killed);
        broken.folder = folder / ("broken-warmed-" + std::to_string(killed));
        EXPECT_THROW(warmed(broken, killed), std::runtime_error);
        EXPECT_THROW(warmed(broken, 2), std::runtime_error);
        expect_same_run(broken, warmed(broken, -1), whole, of_whole);
    }
}

TEST_F(Resume, a_checkpoint_without_warm_up_state_is_resumed) {
    EXPECT_THROW(train(broken, {.killed_at = 6}), std::runtime_error);
    const CheckpointFolder checkpoints(broken.folder / "checkpoints");
    Checkpoint older = *checkpoints.latest();
    ASSERT_EQ(older.scalars.erase("warmup_updates"), 1u);
    checkpoints.save(older);
    expect_same_run(broken, train(broken), whole, expected);
}

TEST_F(Resume, a_run_killed_repeatedly_ends_with_the_same_bits) {
    for (const std::int64_t killed : {2, 3, 7, 8, 11})
        EXPECT_THROW(train(broken, {.killed_at = killed}), std::runtime_error);
    expect_same_run(broken, train(broken), whole, expected);
}

TEST_F(Resume, steps_after_the_last_checkpoint_are_repeated_and_logged_once) {
    EXPECT_THROW(train(broken, {.killed_at = 4}), std::runtime_error);
    broken.checkpoint_seconds = 1e9;
    EXPECT_THROW(train(broken, {.killed_at = 10}), std::runtime_error);
    ASSERT_EQ(CheckpointFolder(broken.folder / "checkpoints").latest()->step, 4);
    ASSERT_EQ(lines_of(broken.folder / "metrics.jsonl").size(), 5U);  // 3, 4, 6, 8 and 9
    expect_same_run(broken, train(broken), whole, expected);
}

TEST_F(Resume, the_log_has_each_logged_step_once) {
    EXPECT_THROW(train(broken, {.killed_at = 6}), std::runtime_error);
    train(broken);
    std::vector<std::int64_t> logged;
    for (const std::string& line : lines_of(broken.folder / "metrics.jsonl")) {
        logged.push_back(core::parse_json(line, "metrics.jsonl").at("step").get<std::int64_t>());
    }
    EXPECT_EQ(logged, (std::vector<std::int64_t>{3, 4, 6, 8, 9, 12}));
}

TEST_F(Resume, a_finished_run_called_again_returns_the_same_without_a_step) {
    const LoopResult again = train(whole, {.killed_at = 0});
    expect_same_run(whole, again, whole, expected);
    EXPECT_EQ(lines_of(whole.folder / "metrics.jsonl").size(), 6U)
        << "its last line, with the probe, was lost";
}

TEST_F(Resume, the_time_of_all_sessions_is_counted) {
    EXPECT_THROW(train(broken, {.killed_at = 6}), std::runtime_error);
    const CheckpointFolder checkpoints(broken.folder / "checkpoints");
    Checkpoint longer = *checkpoints.latest();
    longer.scalars["seconds"] = 1000;
    checkpoints.save(longer);
    EXPECT_GT(train(broken).seconds, 1000);
}

TEST_F(Resume, a_damaged_newest_checkpoint_costs_a_step_and_no_bits) {
    EXPECT_THROW(train(broken, {.killed_at = 7}), std::runtime_error);
    const fs::path newest = CheckpointFolder(broken.folder / "checkpoints").latest_path();
    core::write_text(newest, core::read_text(newest).substr(0, 700));
    expect_same_run(broken, train(broken), whole, expected);
}

TEST_F(Resume, a_checkpoint_of_another_network_is_rejected_by_name) {
    EXPECT_THROW(train(broken, {.killed_at = 3}), std::runtime_error);
    backends::Parameters other{{{"weight", at::zeros({4, 2})}}};
    const networks::Network network = networks::make_network(core::JsonObject(
        {{"architecture", "mlp"}, {"dimensions", 2}, {"hidden", 4}, {"blocks", 1}}, "other"));
    distillation::ScoreMatching stage({network, other, nullptr, {}}, {.steps = steps}, {});
    core::expect_contains(core::error_of([&] { run_stage(stage, broken); }), "first_moment/weight");
}

TEST_F(Resume, a_checkpoint_without_a_scalar_of_the_stage_is_rejected_by_name) {
    EXPECT_THROW(train(broken, {.killed_at = 3}), std::runtime_error);
    const CheckpointFolder checkpoints(broken.folder / "checkpoints");
    Checkpoint older = *checkpoints.latest();
    ASSERT_EQ(older.scalars.erase("stage/running"), 1u);
    checkpoints.save(older);
    const std::string message = core::error_of([&] { train(broken); });
    core::expect_contains(message, "\"stage/running\"");
    core::expect_contains(message, checkpoints.latest_path().string());
}

TEST_F(Resume, the_interval_between_checkpoints_changes_no_bits) {
    broken.checkpoint_seconds = 1e9;
    const LoopResult rarely = train(broken);
    expect_same_run(broken, rarely, whole, expected);
}

TEST(Interruption, a_signal_saves_within_the_step_and_the_next_call_resumes) {
    // The flag that a signal sets cannot be reset, so another process receives it; that process is
    // started with the folder as an argument.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    const core::TestFolder folder;
    ::setenv("ATELIER_TEST_FOLDER", folder.path().c_str(), 0);
    const LoopSettings broken = [] {
        LoopSettings settings = best_of(fs::path(std::getenv("ATELIER_TEST_FOLDER")) / "broken");
        settings.checkpoint_seconds = 1e9;  // only the signal writes one
        return settings;
    }();
    EXPECT_EXIT(
        {
            core::catch_stop_signals();
            try {
                train(broken, {.signal_at = 5});
            } catch (const core::Interrupted& interrupted) {
                fmt::print(stderr, "{}\n", interrupted.what());
                std::exit(130);
            }
        },
        ::testing::ExitedWithCode(130), "small stage stopped at step 5 of 12");
    ::unsetenv("ATELIER_TEST_FOLDER");
    const Checkpoint left = *CheckpointFolder(broken.folder / "checkpoints").latest();
    ASSERT_EQ(left.step, 5);
    ASSERT_EQ(left.scalar("updates_begun"), 1) << "the first of the critic's two";
    const LoopSettings whole = best_of(folder / "whole");
    const LoopResult expected = train(whole);
    expect_same_run(broken, train(broken), whole, expected);
}

/// A real stage: a small teacher on a few points.
LoopResult train_teacher(const LoopSettings& settings, std::int64_t killed_at = -1) {
    models::Model model = models::init_model(
        {{"architecture", "mlp"}, {"dimensions", 2}, {"classes", 3}, {"hidden", 8}, {"blocks", 2}},
        1);
    const auto real = [&](std::int64_t step) {
        if (step == killed_at) throw std::runtime_error("killed");
        return distillation::LabelledBatch{values_of("real", step, {6, 2}), {0, 1, 2, 0, 1, 2}};
    };
    distillation::ScoreMatching stage({model.network, model.parameters, nullptr, real},
                                      {.steps = 10,
                                       .optimization = {.lr = 0.01, .warmup = 5, .ema_decay = 0.9},
                                       .sampler_steps = 3},
                                      {.stream = "teacher"});
    return run_stage(stage, settings);
}

TEST(TeacherTraining, in_two_sessions_gives_the_same_bits_as_in_one) {
    const core::TestFolder folder;
    LoopSettings whole = every_step(folder / "whole"), broken = every_step(folder / "broken");
    for (LoopSettings* settings : {&whole, &broken}) {
        settings->probe_noise = values_of("probe", 0, {4, 2});
        settings->probe_condition = diffusion::one_hot(std::vector<std::int64_t>{0, 1, 2, 0}, 3);
    }
    const LoopResult expected = train_teacher(whole);
    EXPECT_THROW(train_teacher(broken, 5), std::runtime_error);
    expect_same_run(broken, train_teacher(broken), whole, expected);
}

}  // namespace
}  // namespace atelier::training
