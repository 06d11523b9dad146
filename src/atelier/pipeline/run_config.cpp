#include "atelier/pipeline/run_config.h"

#include <algorithm>
#include <cmath>

#include "atelier/backends/torch/bfloat16.h"
#include "atelier/conditions/budget.h"
#include "atelier/conditions/partition.h"
#include "atelier/core/error.h"
#include "atelier/core/processors.h"
#include "atelier/data/data_form.h"
#include "atelier/inference/device.h"
#include "atelier/inference/sampling.h"
#include "atelier/kernels/instructions.h"
#include "atelier/networks/architecture.h"

namespace atelier::pipeline {

namespace {

using core::Schema;

constexpr Schema::Range at_least_0{.min = 0};
constexpr Schema::Range at_least_1{.min = 1};
constexpr Schema::Range fraction{.min = 0, .max = 1};
constexpr Schema::Range positive{.min = 1e-12};

/// The stages that depend on the keys that are bound from here on.
void set_stages(Schema& schema, const std::vector<StageKind>& kinds) {
    std::vector<std::string> names;
    for (const StageKind kind : kinds) names.push_back(name_of(kind));
    schema.set_stages(std::move(names));
}

void bind_network(Schema& schema, NetworkConfig& to) {
    schema.text("network.architecture", &to.architecture, "the teacher's network",
                networks::architectures());
    // Whose key it is comes from the architectures.
    const auto of = [](const char* key, const char* what) {
        return networks::readers_of(key) + ": " + what;
    };
    const auto number = [&](const char* key, std::int64_t& value, const char* what) {
        schema.number(std::string("network.") + key, &value, of(key, what), at_least_1);
    };
    const auto numbers = [&](const char* key, std::vector<std::int64_t>& value, const char* what) {
        schema.numbers(std::string("network.") + key, &value, of(key, what), at_least_1);
    };
    number("model_channels", to.model_channels, "width");
    numbers("channel_mult", to.channel_mult, "width factors, one per level");
    number("num_blocks", to.num_blocks, "residual blocks per level");
    numbers("attention_resolutions", to.attention_resolutions, "inner resolutions that attend");
    number("channel_mult_emb", to.channel_mult_emb, "embedding width over model_channels");
    number("patch_size", to.patch_size,
           "side in pixels of the patches that become channels, or a transformer's tokens");
    number("hidden", to.hidden, "width");
    number("blocks", to.blocks, "residual or transformer blocks");
    schema.number("network.heads", &to.heads,
                  of("heads", "attention heads; 0: one for each 64 of network.hidden"), at_least_0);
}

void bind_text(Schema& schema, TextConfig& to) {
    schema.number("text.width", &to.width, "captioned data: width of a caption's embedding",
                  at_least_1);
    schema.number("text.layers", &to.layers, "captioned data: layers of the text tower",
                  at_least_1);
    schema.number("text.heads", &to.heads, "captioned data: heads of its attention", at_least_1);
    schema.number("text.tokens", &to.tokens,
                  "captioned data: maximum number of tokens of a caption",
                  {.min = 4, .max = 65536});
    schema.number("text.merges", &to.merges,
                  "captioned data: maximum number of tokens that the tokenizer learns", at_least_0);
}

/// `computed`: the stages that depend on the teacher. `of_loss`: also those that depend on its
/// denoising loss.
void bind_teacher(Schema& schema, TeacherConfig& to, const std::vector<StageKind>& computed,
                  const std::vector<StageKind>& of_loss) {
    set_stages(schema, computed);
    schema.text("teacher.path", &to.path,
                "an existing teacher's model directory; empty: train one");
    distillation::bind_settings(schema, "teacher", to.training, "training steps");
    set_stages(schema, of_loss);
    schema.text("teacher.noise", &to.noise,
                "of a teacher that is trained here: edm (denoising), or flow (matching the "
                "velocity of straight paths; ln sigma = logit t)",
                {"edm", "flow"});
    schema.number("teacher.flow_shift", &to.flow_shift,
                  "flow: moves noise levels t to s t / (1 + (s-1) t); 1: none",
                  {.min = 1e-3, .max = 1e3});
    set_stages(schema, computed);
    schema.number("teacher.sigma_data", &to.sigma_data,
                  "standard deviation of the data in model space", positive);
    schema.number("teacher.sigma_min", &to.sigma_min, "lowest noise level; flow: 0.001 unless set",
                  positive);
    schema.number("teacher.sigma_max", &to.sigma_max, "highest noise level; flow: 999 unless set",
                  positive);
    set_stages(schema, of_loss);
    schema.number("teacher.p_mean", &to.p_mean,
                  "mean of ln sigma in training (EDM's P_mean); flow: 0 unless set");
    schema.formerly("teacher.p_mean", "teacher.level_mean");
    schema.number("teacher.p_std", &to.p_std,
                  "standard deviation of ln sigma in training (EDM's P_std); flow: 1 unless set",
                  positive);
    schema.formerly("teacher.p_std", "teacher.level_deviation");
    set_stages(schema, computed);
    schema.number("teacher.condition_dropout", &to.training.condition_dropout,
                  "fraction of training samples whose condition is dropped, which guidance needs",
                  fraction);
    schema.number("teacher.guidance", &to.guidance,
                  "classifier-free guidance wherever the teacher is evaluated: samples, pairs, "
                  "distribution matching; 1: none",
                  at_least_0);
    schema.flag("teacher.bfloat16", &to.bfloat16, "the old form of precision = \"bf16\"");
}

void bind_students(Schema& schema, RunConfig& config) {
    set_stages(schema, {StageKind::partition, StageKind::tsm, StageKind::dm, StageKind::adm});
    schema.number("partition.students", &config.partition.students, "K, the number of students",
                  at_least_1);
    schema.text("partition.method", &config.partition.method, "how classes are split",
                conditions::partition_methods());
    schema.text("partition.file", &config.partition.file,
                "the explicit partition (method = \"file\")");
    set_stages(schema, {StageKind::pairs, StageKind::dm, StageKind::adm});
    schema.number("pairs.count", &config.pairs.count,
                  "noise-sample pairs from the teacher; 0: none", at_least_0);
    schema.number("pairs.steps", &config.pairs.steps, "Heun steps per pair", at_least_1);
    schema.number("pairs.shard", &config.pairs.shard, "pairs per file", at_least_1);
    set_stages(schema, {StageKind::dm, StageKind::adm});
    schema.text("pairs.path", &config.pairs.path, "an existing pair store; empty: make one");
    schema.text("pairs.filter", &config.pairs.filter,
                "pairs that a student sees: all, or those of its cell", {"all", "cell"});
    set_stages(schema, {StageKind::dm, StageKind::adm});
    schema.number("trunk.dm_steps", &config.trunk.dm_steps,
                  "generator updates of DM by which one student of all conditions is trained "
                  "first; all students then branch from it, with its fake score; 0: none",
                  at_least_0);
    schema.number("trunk.adm_steps", &config.trunk.adm_steps,
                  "those of ADM, whose GAN head the students go on with; 0: none", at_least_0);
    schema.choice(
        "students.budget", &config.students.budget,
        "how the updates of all students' DM and ADM, partition.students times dm.steps "
        "and adm.steps, are divided: equal; prior, by how often the conditions of a cell "
        "occur; difficulty, by that times the teacher's loss on them",
        {{"equal", Budget::equal}, {"prior", Budget::prior}, {"difficulty", Budget::difficulty}});
    schema.numbers("students.steps", &config.students.steps,
                   "evaluations in which students sample: one number, or one per student; empty: 1",
                   {.min = 1, .max = models::ModelCard::most_steps});
    set_stages(schema, {StageKind::tsm, StageKind::dm, StageKind::adm});
    schema.numbers("students.widths", &config.students.widths,
                   "model_channels or hidden: one, or one per student; empty: the teacher's",
                   at_least_1);
    schema.numbers("students.depths", &config.students.depths,
                   "num_blocks or blocks: one, or one per student; empty: the teacher's",
                   at_least_1);
    schema.numbers("students.channel_mult", &config.students.channel_mult,
                   "width factors of all students' levels; empty: the teacher's", at_least_1);
    schema.text("students.start", &config.students.start,
                "branch: a finished stage of another run's student, e.g. runs/one/students/0/dm; "
                "empty: from teacher, TSM or trunk");
    schema.flag("students.tsm", &config.students.tsm,
                "start students of another size by teacher score matching");
    schema.number("students.lora_rank", &config.students.lora_rank,
                  "students and their fake scores are low-rank deltas of this rank over the frozen "
                  "teacher; 0: all weights learn",
                  {.min = 0, .max = 65536});
    schema.number("students.parallel", &config.students.parallel,
                  "students that train in parallel, each in its own process; no more than there "
                  "are processors",
                  {.min = 1, .max = 1024, .affects_result = false});
    schema.number("students.threads", &config.students.threads,
                  "threads of a student's process; all together no more than there are processors",
                  {.min = 1, .affects_result = false});
}

[[noreturn]] void reject(const std::string& what) { throw core::UsageError(what); }

void check_list(const std::vector<std::int64_t>& list, std::int64_t students, const char* key) {
    const auto size = static_cast<std::int64_t>(list.size());
    if (size > 1 && size != students) {
        reject(
            fmt::format("{} has {} entries; give one for all students or one for each of the {} "
                        "(partition.students)",
                        key, size, students));
    }
}

/// Throws core::UsageError where students of these settings cannot branch from a trunk.
void check_trunk(const RunConfig& config) {
    const auto differ = [](const std::vector<std::int64_t>& list) {
        return std::ranges::adjacent_find(list, std::not_equal_to()) != list.end();
    };
    if (differ(config.students.widths) || differ(config.students.depths))
        reject(
            "students that branch from a trunk have its size: give one entry in students.widths "
            "and students.depths, or set trunk.dm_steps and trunk.adm_steps to 0");
}

void check(const RunConfig& config) {
    if (config.trunk.exists()) {
        check_trunk(config);
        check(config.of_trunk());
    }
    inference::named_device(config.device);
    if (config.output.empty())
        reject("output is empty: name the run's directory, e.g. output=runs/first");
    if (config.teacher.bfloat16 && config.precision == "fp16")
        reject("teacher.bfloat16 is the old form of precision = \"bf16\"; precision says \"fp16\"");
    if (config.data_path.empty())
        reject("data.path is empty: name the data set, e.g. data.path=toy:ring");
    if (config.teacher.sigma_min >= config.teacher.sigma_max)
        reject("teacher.sigma_min must be below teacher.sigma_max");
    if (config.teacher.guidance != 1 && config.teacher.path.empty() &&
        config.teacher.training.condition_dropout == 0) {
        reject(
            "teacher.guidance needs a teacher that was trained without conditions too: set "
            "teacher.condition_dropout, e.g. to 0.1");
    }
    if (config.network.architecture == "sd_unet" && config.teacher.path.empty()) {
        reject(
            "network.architecture = \"sd_unet\" describes a teacher that exists: set teacher.path "
            "to its diffusers directory");
    }
    if (config.text.width % config.text.heads != 0)
        reject("text.width must be a multiple of text.heads");
    const bool resized = !config.students.widths.empty() || !config.students.depths.empty() ||
                         !config.students.channel_mult.empty();
    if (config.students.lora_rank > 0 && resized)
        reject(
            "students.lora_rank is for students of the teacher's size, since its weights are their "
            "base");
    if (config.students.lora_rank > 0 && !config.students.start.empty())
        reject(
            "students.lora_rank and students.start exclude each other: the base of "
            "the deltas is the teacher");
    check_list(config.students.widths, config.partition.students, "students.widths");
    check_list(config.students.depths, config.partition.students, "students.depths");
    check_list(config.students.steps, config.partition.students, "students.steps");
    for (const auto* matching : {&config.dm, &config.adm}) {
        if (matching->uses_pairs() && config.pairs.count == 0 && config.pairs.path.empty()) {
            reject(
                "a regression loss needs pairs: set pairs.count or pairs.path, or regression = "
                "\"none\"");
        }
        if (matching->uses_pairs(distillation::PairLoss::lpips) && config.lpips.backbone.empty()) {
            reject(
                "regression = \"lpips\" needs weights that Atelier does not ship: set "
                "lpips.backbone and lpips.linear");
        }
    }
    for (const std::string& sampler : config.evaluation.samplers) {
        const auto sampling = inference::sampling_of(sampler, std::nullopt);
        if (!sampling || sampling->method == inference::Sampling::Method::one_step) {
            reject(fmt::format(
                "evaluate.samplers: \"{}\" is not a sampler of a teacher; give heun, ddim or "
                "stochastic with their steps",
                sampler));
        }
    }
}

/// Limits threads to the usable processors, within a process and over all students' processes.
void limit_threads(RunConfig& config) {
    StudentsConfig& students = config.students;
    config.threads = core::threads_within(config.threads, "threads");
    const std::int64_t usable = core::usable_processors(),
                       together = std::min(students.parallel, config.partition.students);
    if (together * students.threads <= usable) return;
    if (together == 1) {
        students.threads = core::threads_within(students.threads, "students.threads");
        return;
    }
    core::threads_within(together * students.threads, "students.parallel x students.threads");
    students.parallel = std::min(together, usable);
    students.threads =
        std::min(students.threads, std::max<std::int64_t>(1, usable / students.parallel));
}

/// The noise levels that were not set are those of the teacher's noise.
void take_levels(const Schema& schema, TeacherConfig& teacher) {
    const diffusion::NoiseSchedule noise = trained_noise(teacher);
    const auto is_given = [&](const char* key) {
        return schema.source(key) != Schema::Source::preset;
    };
    const auto take = [&](const char* key, double& value, double own) {
        if (!is_given(key)) value = own;
    };
    take("teacher.sigma_min", teacher.sigma_min, noise.sigma_min);
    take("teacher.sigma_max", teacher.sigma_max, noise.sigma_max);
    take("teacher.p_mean", teacher.p_mean, noise.p_mean);
    take("teacher.p_std", teacher.p_std, noise.p_std);
    teacher.levels_given = is_given("teacher.p_mean") || is_given("teacher.p_std");
}

/// Float16's range requires loss scaling (training/loss_scale.h).
void scale_losses(RunConfig& config) {
    constexpr double first_scale = 65536;
    for (auto* each :
         {&config.teacher.training.optimization, &config.tsm.optimization, &config.dm.student,
          &config.dm.fake, &config.adm.student, &config.adm.fake}) {
        each->loss_scale = first_scale;
    }
}

}  // namespace

diffusion::NoiseSchedule trained_noise(const TeacherConfig& config) {
    if (config.noise == "edm") return {};
    return {diffusion::FlowNoise{.shift = config.flow_shift}};
}

nlohmann::json values_of(NetworkConfig config) {
    Schema schema;
    bind_network(schema, config);
    return schema.values().at("network");
}

core::Schema schema_of(RunConfig& config) {
    const Schema::Range free_to_change{.min = 0, .affects_result = false};
    using Kind = StageKind;
    const std::vector<StageKind> everything{Kind::teacher,   Kind::partition, Kind::pairs,
                                            Kind::tsm,       Kind::dm,        Kind::adm,
                                            Kind::evaluation},
        computed{Kind::teacher, Kind::pairs, Kind::tsm, Kind::dm, Kind::adm},
        trained{Kind::teacher, Kind::tsm, Kind::dm, Kind::adm};
    Schema schema;
    set_stages(schema, {StageKind::teacher, StageKind::partition, StageKind::pairs, StageKind::tsm,
                        StageKind::dm, StageKind::adm});
    schema.number("seed", &config.seed, "seed of all random numbers of the run", at_least_0);
    schema.text("output", &config.output, "the run's directory", {}, false);
    schema.text("device", &config.device,
                "cpu, cuda or cuda:N; with cuda, each rank of a machine has a GPU of its own", {},
                false);
    schema.number(
        "threads", &config.threads,
        "CPU threads, at most as many as there are processors, which ranks of one machine "
        "share; 0: as many",
        free_to_change);
    schema.number("device_memory", &config.device_memory,
                  "GiB of the device, which --dry-run plans for; 0: what is found (CPUs)",
                  free_to_change);
    set_stages(schema, computed);
    schema.text(
        "precision", &config.precision,
        "of products and convolutions in training (weights and losses are float32); fp16 "
        "scales its losses; tf32 is fp32 with products of 10 bits on GPUs; bf16 on a CPU that "
        "has none, and tf32, compute in fp32",
        {"fp32", "tf32", "bf16", "fp16"});
    schema.flag("deterministic", &config.deterministic,
                "GPUs train with kernels that give the same bits again; CPUs always do", false);
    schema.flag("optimizer_sharding", &config.optimizer_sharding,
                "each rank keeps the moments and averages of some tensors only (ZeRO's first "
                "stage): less memory per GPU, the same bytes",
                false);
    set_stages(schema, trained);
    schema.flag("activation_checkpointing", &config.activation_checkpointing,
                "U-Nets' blocks retain only their inputs and are recomputed in the backward "
                "pass: less memory, a third more work");
    schema.choice(
        "reduction", &config.reduction,
        "how gradients of micro-batches are summed: exact (in whole numbers, the same "
        "bits for any number of ranks) or float (quicker)",
        {{"exact", parallel::Reduction::exact}, {"float", parallel::Reduction::floating}});
    schema.number("checkpoint_seconds", &config.checkpoint_seconds, "time between checkpoints",
                  free_to_change);
    schema.number("checkpoints_kept", &config.checkpoints_kept,
                  "newest checkpoints that a stage keeps",
                  {.min = 1, .max = 1e6, .affects_result = false});
    schema.number("log_every", &config.log_every, "steps between lines of metrics.jsonl",
                  {.min = 1, .affects_result = false});
    set_stages(schema, everything);
    schema.text("data.path", &config.data_path, data::data_forms);
    set_stages(schema, {StageKind::evaluation});
    schema.text("data.test_path", &config.test_path,
                "held-out data for evaluation; empty: the test split of data.path");
    schema.number("data.classes", &config.data_classes,
                  "classes that the data must have; 0: none, -1: any",
                  {.min = -1, .affects_result = false});
    schema.numbers("data.shape", &config.data_shape,
                   "shape that samples must have, e.g. [3, 64, 64]; empty: any",
                   {.min = 1, .affects_result = false});
    schema.number("data.loader_threads", &config.loader_threads,
                  "threads that each read a batch ahead of training; 0: one on a CPU, up to four "
                  "where an accelerator computes",
                  {.min = 0, .max = 64, .affects_result = false});
    set_stages(schema, trained);
    schema.flag("data.flips", &config.flips, "mirror half of the training images");
    set_stages(schema, computed);
    bind_network(schema, config.network);
    bind_text(schema, config.text);
    std::vector<StageKind> of_loss = computed;
    of_loss.push_back(Kind::partition);  // "balanced": by the loss of each class
    bind_teacher(schema, config.teacher, computed, of_loss);
    bind_students(schema, config);
    set_stages(schema, {StageKind::tsm, StageKind::dm, StageKind::adm});
    distillation::bind_settings(schema, "tsm", config.tsm, "steps of teacher score matching");
    set_stages(schema, {StageKind::dm, StageKind::adm});
    distillation::bind_settings(schema, "dm", config.dm);
    set_stages(schema, {StageKind::adm});
    distillation::bind_settings(schema, "adm", config.adm);
    set_stages(schema,
               {StageKind::dm, StageKind::adm});  // where a regression needs it: stage_values_of
    schema.text("lpips.network", &config.lpips.network, "backbone of regression = \"lpips\"",
                {"vgg", "alex"});
    schema.text("lpips.backbone", &config.lpips.backbone,
                "its weights: torchvision's vgg16 or alexnet (.pth or safetensors)");
    schema.text("lpips.linear", &config.lpips.linear,
                "the lpips package's layer weights (vgg.pth or alex.pth); empty: they are in "
                "lpips.backbone");
    set_stages(schema, {StageKind::dm, StageKind::adm});  // where keep_best chooses by it
    schema.number("probe.every", &config.probe.every,
                  "steps between probe measurements and sample images; 0: only at the end",
                  at_least_0);
    schema.number("probe.count", &config.probe.count, "samples per probe", at_least_1);
    schema.text(
        "probe.classifier", &config.probe.classifier,
        "model directory of the classifier whose features choose the best weights, and regress "
        "with \"perceptual\"; empty: what evaluate.classifier was when the run began");
    set_stages(schema, {});
    schema.number("probe.sampler_every", &config.probe.sampler_every,
                  "as probe.every, for the teacher and TSM, whose samples take evaluate.steps "
                  "steps of the sampler",
                  at_least_0);
    schema.number("probe.batch", &config.probe.batch, "samples of a probe drawn together; 0: all",
                  at_least_0);
    set_stages(schema, {StageKind::evaluation});
    schema.number("evaluate.count", &config.evaluation.count, "samples per evaluation", {.min = 2});
    schema.number("evaluate.seeds", &config.evaluation.seeds,
                  "evaluations with different seeds, from 1000 on", {.min = 1});
    schema.number("evaluate.steps", &config.evaluation.steps, "the teacher's Heun steps",
                  {.min = 1});
    schema.texts("evaluate.samplers", &config.evaluation.samplers,
                 "further rows of the teacher, each by a sampler, e.g. [\"heun:64\", "
                 "\"stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003\"]");
    schema.text("evaluate.classifier", &config.evaluation.classifier,
                "model directory of the classifier whose features measure images; empty: none");
    schema.text("evaluate.inception", &config.evaluation.inception,
                "weights of Inception-v3, whose features measure images instead of the "
                "classifier's; empty: none");
    schema.text("evaluate.dinov2", &config.evaluation.dinov2,
                "weights of DINOv2 (transformers' model.safetensors, or the authors' .pth), "
                "likewise; several networks measure together");
    schema.text("evaluate.clip_features", &config.evaluation.clip_features,
                "directory of a CLIPModel (transformers'), likewise");
    schema.text("evaluate.real", &config.evaluation.real,
                "real images apart from those that models are measured against, as many as "
                "evaluate.count at least: FDr^k; empty: none");
    schema.text("evaluate.attributes", &config.evaluation.attributes,
                "of captioned data: JSON file that names attributes, the phrases by which captions "
                "mention them, and a classifier for each (docs/captions.md); empty: none");
    return schema;
}

nlohmann::json stage_values_of(const core::Schema& schema, const RunConfig& config,
                               StageKind stage) {
    nlohmann::json values = schema.values_of(name_of(stage));
    if (!config.uses_lpips()) values.erase("lpips");
    const auto needs = conditions::needs_of(config.partition.method);
    if (stage == StageKind::partition && needs != conditions::PartitionNeeds::difficulty)
        values.erase("teacher");
    if (!config.chooses_by_probes(stage)) values.erase("probe");
    return values;
}

nlohmann::json trunk_values_of(const RunConfig& config, StageKind stage) {
    RunConfig of_trunk = config.of_trunk();
    nlohmann::json values = stage_values_of(schema_of(of_trunk), of_trunk, stage);
    values.erase("partition");
    values.erase("trunk");
    for (const char* matching : {"dm", "adm"}) {
        if (!values.contains(matching)) continue;
        values["trunk"][std::string(matching) + "_steps"] = values[matching]["steps"];
        values[matching].erase("steps");
    }
    return values;
}

std::vector<std::string> flat_keys(const nlohmann::json& values) {
    std::vector<std::string> keys;
    const auto flatten = [&](const auto& self, const nlohmann::json& values,
                             const std::string& prefix) -> void {
        for (const auto& [key, value] : values.items()) {
            if (value.is_object()) self(self, value, prefix + key + ".");
            else keys.push_back(prefix + key);
        }
    };
    flatten(flatten, values, "");
    std::ranges::sort(keys);
    return keys;
}

bool RunConfig::chooses_by_probes(StageKind stage) const {
    if (stage == StageKind::dm) return dm.keep_best;
    return stage == StageKind::adm && ((dm.steps > 0 && dm.keep_best) || adm.keep_best);
}

bool RunConfig::uses_classifier(StageKind stage) const {
    constexpr auto loss = distillation::PairLoss::perceptual;
    const bool perceptual =
        dm.uses_pairs(loss) || (stage == StageKind::adm && adm.uses_pairs(loss));
    return chooses_by_probes(stage) ||
           ((stage == StageKind::dm || stage == StageKind::adm) && perceptual);
}

RunConfig RunConfig::of_trunk() const {
    RunConfig config = *this;
    config.trunk = {};
    config.partition = {.students = 1};
    config.pairs.filter = "all";
    config.students.lora_rank = 0;
    config.students.budget = Budget::equal;
    for (auto* sizes : {&config.students.widths, &config.students.depths, &config.students.steps})
        sizes->resize(std::min<std::size_t>(sizes->size(), 1));
    config.dm.steps = trunk.dm_steps;
    config.adm.steps = trunk.adm_steps;
    return config;
}

RunConfig RunConfig::of_student(std::int64_t student, std::span<const double> shares) const {
    RunConfig config = *this;
    if (shares.empty()) return config;
    const auto k = static_cast<std::size_t>(student);
    const double share = shares[k], fewer = std::min(1.0, share);
    for (auto* matching : {&config.dm, &config.adm}) {
        matching->steps = conditions::divide_steps(matching->steps, shares)[k];
        for (auto* learner : {&matching->student, &matching->fake})
            learner->warmup =
                static_cast<std::int64_t>(std::ceil(fewer * static_cast<double>(learner->warmup)));
    }
    if (config.probe.every > 0)
        config.probe.every = std::max<std::int64_t>(
            1, std::llround(share * static_cast<double>(config.probe.every)));
    return config;
}

backends::Compute RunConfig::compute() const {
    if (precision == "bf16" && (device != "cpu" || backends::cpu_trains_in_bfloat16()))
        return {at::kBFloat16, activation_checkpointing};
    if (precision == "fp16") return {at::kHalf, activation_checkpointing};
    return {std::nullopt, activation_checkpointing};
}

LoadedConfig load_config(const std::string& path, const std::vector<std::string>& overrides) {
    LoadedConfig loaded{.config = {}, .path = path, .overrides = overrides};
    core::Schema schema = schema_of(loaded.config);
    loaded.defaults = schema.values();
    loaded.former_keys = schema.former_keys();
    schema.read(path, overrides);
    take_levels(schema, loaded.config.teacher);
    check(loaded.config);
    if (loaded.config.teacher.bfloat16) loaded.config.precision = "bf16";
    if (loaded.config.precision == "fp16") scale_losses(loaded.config);
    for (const StageKind stage : stage_kinds)
        loaded.stage_values[stage] = stage_values_of(schema, loaded.config, stage);
    if (loaded.config.trunk.exists()) {
        for (const StageKind stage : student_stage_kinds)
            loaded.trunk_values[stage] = trunk_values_of(loaded.config, stage);
    }
    using Source = core::Schema::Source;
    const auto is_explicit = [&](const char* key) {
        const Source source = schema.source(key);
        return source == Source::command_line ||
               (source == Source::file && schema.source("data.path") != Source::command_line);
    };
    loaded.classifier_is_explicit = is_explicit("evaluate.classifier");
    loaded.attributes_are_explicit = is_explicit("evaluate.attributes");
    limit_threads(loaded.config);
    return loaded;
}

}  // namespace atelier::pipeline
