#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "atelier/core/schema.h"
#include "atelier/diffusion/noise_schedule.h"
#include "atelier/distillation/settings.h"
#include "atelier/parallel/reduction.h"
#include "atelier/pipeline/stage_kind.h"

namespace atelier::pipeline {

/// Sizes of a network; each architecture reads its own (networks::Architecture::keys).
struct NetworkConfig {
    std::string architecture = "adm_unet";
    // U-Nets
    std::int64_t model_channels = 32, num_blocks = 1, channel_mult_emb = 4, patch_size = 1;
    std::vector<std::int64_t> channel_mult{1, 2}, attention_resolutions{};
    // mlp, dit
    std::int64_t hidden = 128, blocks = 4, heads = 0;
};

struct TeacherConfig {
    std::string path;  // an existing model directory instead of training
    distillation::ScoreMatchingSettings training{.steps = 10000,
                                                 .optimization = {.lr = 1e-3,
                                                                  .beta2 = 0.99,
                                                                  .clip = 1.0,
                                                                  .warmup = 200,
                                                                  .decay_from = 0.5,
                                                                  .ema_decay = 0.999}};
    std::string noise = "edm";
    double flow_shift = 1;
    double sigma_data = 0.5, sigma_min = 0.002, sigma_max = 80, p_mean = -1.2, p_std = 1.2;
    bool levels_given = false;  // whether p_mean or p_std was set; else the noise's own
    double guidance = 1;
    bool bfloat16 = false;
};

/// The text tower that is trained with a teacher of captioned data, and its tokenizer.
struct TextConfig {
    std::int64_t width = 64, layers = 2, heads = 4, tokens = 32, merges = 512;
};

struct PartitionConfig {
    std::int64_t students = 4;
    std::string method = "consecutive", file;
};

struct PairsConfig {
    std::int64_t count = 0, steps = 18, shard = 4096;
    std::string path, filter = "all";
};

/// What decides how many of the updates of all students' DM and ADM each has.
enum class Budget { equal, prior, difficulty };

struct StudentsConfig {
    Budget budget = Budget::equal;
    std::vector<std::int64_t> widths,
        depths;  // empty: the teacher's; one for all, or one per student
    std::vector<std::int64_t> channel_mult;  // empty: the teacher's; of all students
    std::vector<std::int64_t> steps;         // empty: 1; one for all, or one per student
    std::string start;                       // a stage's folder of another run to branch from
    std::int64_t parallel = 1, threads = 1;
    bool tsm = true;
    std::int64_t lora_rank = 0;  // 0: all weights are trained
};

/// A student of all conditions that is trained once, before the others branch from it.
struct TrunkConfig {
    std::int64_t dm_steps = 0, adm_steps = 0;  // both 0: there is none

    bool exists() const { return dm_steps > 0 || adm_steps > 0; }
};

struct ProbeConfig {
    std::int64_t every = 0, sampler_every = 0, count = 1000, batch = 0;
    std::string classifier;
};

struct EvaluationConfig {
    std::int64_t count = 10000, seeds = 1, steps = 18;
    std::string classifier = "models/classifier";
    std::string attributes{};
    std::vector<std::string> samplers;  // of additional rows of the teacher
    // Networks instead of the classifier, and real images for FDr^k, as of `atelier evaluate`.
    std::string inception{}, dinov2{}, clip_features{}, real{};
};

/// The weights that regression = "lpips" needs.
struct LpipsConfig {
    std::string network = "vgg", backbone, linear;
};

/// The contents of a config file; keys are documented where they are bound (run_config.cpp).
struct RunConfig {
    std::int64_t seed = 0;
    std::string output, device = "cpu";
    std::int64_t threads = 0;
    double device_memory = 0;  // GiB
    std::string precision = "fp32";
    bool activation_checkpointing = false, deterministic = true, optimizer_sharding = false;
    parallel::Reduction reduction = parallel::Reduction::exact;
    std::string data_path, test_path;
    std::int64_t data_classes = -1;
    std::vector<std::int64_t> data_shape;
    std::int64_t loader_threads = 0;
    bool flips = false;
    NetworkConfig network;
    TextConfig text;
    TeacherConfig teacher;
    PartitionConfig partition;
    PairsConfig pairs;
    StudentsConfig students;
    TrunkConfig trunk;
    distillation::ScoreMatchingSettings tsm{.steps = 2000,
                                            .optimization = {.lr = 1e-3,
                                                             .beta2 = 0.99,
                                                             .clip = 1.0,
                                                             .warmup = 100,
                                                             .decay_from = 0.5,
                                                             .ema_decay = 0.999}};
    distillation::MatchingSettings dm{.student = {.lr = 2e-4, .warmup = 50, .ema_decay = 0.99},
                                      .fake = {.lr = 4e-4, .warmup = 50}},
        adm{.student = {.lr = 2e-4, .warmup = 50, .ema_decay = 0.99},
            .fake = {.lr = 4e-4, .warmup = 50},
            .adversarial = distillation::AdversarialSettings{.gan_weight = 0.003}};
    LpipsConfig lpips;
    ProbeConfig probe;
    EvaluationConfig evaluation;
    double checkpoint_seconds = 60;
    std::int64_t checkpoints_kept = 2, log_every = 50;

    /// This config as it is for the trunk: one student of all conditions, with the trunk's steps.
    RunConfig of_trunk() const;
    /// This config as it is for a student whose budget is its share of an equal one: `shares` as
    /// conditions::budget_shares returns them, or none where budgets are equal. DM's and ADM's
    /// updates are divided; the probes of a student are as many as with an equal budget, and the
    /// warm-up of learning rates is shorter in proportion where there are fewer updates.
    RunConfig of_student(std::int64_t student, std::span<const double> shares) const;
    /// The settings of DM or ADM.
    const distillation::MatchingSettings& matching(StageKind stage) const {
        return stage == StageKind::dm ? dm : adm;
    }

    /// Whether a stage's (DM, ADM) weights are chosen by the probes, or depend on the
    /// classifier's features.
    bool chooses_by_probes(StageKind stage) const;
    bool uses_classifier(StageKind stage) const;
    bool uses_lpips() const {
        constexpr auto loss = distillation::PairLoss::lpips;
        return dm.uses_pairs(loss) || adm.uses_pairs(loss);
    }
    /// How all stages compute: in `precision`, but for bf16 in float32 on CPUs without instructions
    /// for it (cpu_trains_in_bfloat16).
    backends::Compute compute() const;
};

/// The noise of a teacher that is trained here, at the levels of its kind.
diffusion::NoiseSchedule trained_noise(const TeacherConfig& config);

/// The values of the keys network.*, by their names without "network.".
nlohmann::json values_of(NetworkConfig config);

/// The keys of a config, bound to `config`, which must outlive the schema.
core::Schema schema_of(RunConfig& config);

/// The values of the keys of `schema` that a stage of `config` depends on, nested; without those
/// that another of its keys disables.
nlohmann::json stage_values_of(const core::Schema& schema, const RunConfig& config,
                               StageKind stage);
/// The same of the trunk's stages, which do not depend on the partition, with the numbers of steps
/// under the names by which they are set.
nlohmann::json trunk_values_of(const RunConfig& config, StageKind stage);
/// The keys of such values, sorted.
std::vector<std::string> flat_keys(const nlohmann::json& values);

/// A config, with its sources.
struct LoadedConfig {
    RunConfig config;
    std::string path;
    std::vector<std::string> overrides;
    std::map<StageKind, nlohmann::json>
        stage_values;  // the values of the keys that a stage's result depends on
    std::map<StageKind, nlohmann::json> trunk_values;  // the same for the trunk's stages
    nlohmann::json defaults;                           // of all keys
    std::map<std::string, std::string> former_keys;    // former names, with the current keys
    /// Whether evaluate.classifier and evaluate.attributes were chosen for these data: both are in
    /// the file, or they were given on the command line. Otherwise they are dropped where they do
    /// not fit, and on captioned data, of which they cannot say whether they fit.
    bool classifier_is_explicit = false, attributes_are_explicit = false;

    const nlohmann::json& values_of(StageKind stage,
                                    std::optional<std::int64_t> student = {}) const {
        return (student == trunk ? trunk_values : stage_values).at(stage);
    }
};

/// Reads a config and checks ranges and dependencies between keys. Throws core::UsageError.
LoadedConfig load_config(const std::string& path, const std::vector<std::string>& overrides);

}  // namespace atelier::pipeline
