#include "atelier/cli/run_config.h"

#include <cstdlib>

#include "atelier/core/error.h"
#include "atelier/core/processors.h"
#include "atelier/distillation/divergences.h"
#include "atelier/inference/device.h"
#include "atelier/inference/generator.h"
#include "atelier/networks/network.h"
#include "atelier/ops/instructions.h"

namespace atelier::cli {

namespace {

using core::Schema;

constexpr Schema::Range at_least_0{.least = 0};
constexpr Schema::Range at_least_1{.least = 1};
constexpr Schema::Range share{.least = 0, .most = 1};
constexpr Schema::Range positive{.least = 1e-12};

void bind_optimization(Schema& schema, const std::string& table, const std::string& prefix, distillation::Optimization& to) {
    const auto key = [&](const char* name) { return table + "." + prefix + name; };
    schema.number(key("lr"), &to.lr, "AdamW learning rate", positive);
    schema.number(key("beta1"), &to.beta1, "AdamW first decay", share);
    schema.number(key("beta2"), &to.beta2, "AdamW second decay", share);
    schema.number(key("weight_decay"), &to.weight_decay, "decoupled weight decay", at_least_0);
    schema.number(key("clip"), &to.clip, "largest gradient norm; 0: no clipping", at_least_0);
    schema.number(key("warmup"), &to.warmup, "updates until the full rate", at_least_0);
    schema.number(key("decay_from"), &to.decay_from, "share of the stage after which the rate falls linearly", share);
    schema.number(key("final_share"), &to.final_share, "share of lr that is left at the end", share);
    schema.number(key("ema_decay"), &to.ema_decay, "decay of the weights' average; 0: none is kept", share);
    if (prefix.empty()) {
        schema.numbers(key("more_ema_decays"), &to.more_ema_decays, "decays of further averages, written beside as model-ema-<decay>.safetensors", share);
    }
}

void bind_network(Schema& schema, NetworkConfig& to) {
    schema.text("network.architecture", &to.architecture, "the teacher's network", networks::architectures());
    schema.number("network.model_channels", &to.model_channels, "adm_unet: width", at_least_1);
    schema.numbers("network.channel_mult", &to.channel_mult, "adm_unet: width factors, one a level", at_least_1);
    schema.number("network.num_blocks", &to.num_blocks, "adm_unet: residual blocks a level", at_least_1);
    schema.numbers("network.attention_resolutions", &to.attention_resolutions, "adm_unet: inner resolutions that attend", at_least_1);
    schema.number("network.channel_mult_emb", &to.channel_mult_emb, "adm_unet: embedding width over model_channels", at_least_1);
    schema.number("network.patch_size", &to.patch_size, "adm_unet: pixels a side that become channels", at_least_1);
    schema.number("network.hidden", &to.hidden, "mlp: width", at_least_1);
    schema.number("network.blocks", &to.blocks, "mlp: residual blocks", at_least_1);
}

void bind_text(Schema& schema, TextConfig& to) {
    schema.number("text.width", &to.width, "captioned data: numbers of a caption's embedding", at_least_1);
    schema.number("text.layers", &to.layers, "captioned data: layers of the text tower", at_least_1);
    schema.number("text.heads", &to.heads, "captioned data: heads of its attention", at_least_1);
    schema.number("text.tokens", &to.tokens, "captioned data: most tokens of a caption", {.least = 4, .most = 65536});
    schema.number("text.merges", &to.merges, "captioned data: most tokens that the tokenizer learns", at_least_0);
}

void bind_teacher(Schema& schema, TeacherConfig& to) {
    schema.text("teacher.path", &to.path, "an existing teacher's model directory; empty: train one");
    schema.number("teacher.steps", &to.steps, "training steps", at_least_0);
    schema.number("teacher.batch", &to.batch, "samples a step", at_least_1);
    schema.number("teacher.micro_batch", &to.micro_batch, "samples computed at once, their gradients added up to the batch's; 0: all", at_least_0);
    bind_optimization(schema, "teacher", "", to.optimization);
    schema.number("teacher.sigma_data", &to.sigma_data, "standard deviation of the data in model space", positive);
    schema.number("teacher.sigma_min", &to.sigma_min, "lowest noise level", positive);
    schema.number("teacher.sigma_max", &to.sigma_max, "highest noise level", positive);
    schema.number("teacher.level_mean", &to.level_mean, "mean of ln sigma in training");
    schema.number("teacher.level_deviation", &to.level_deviation, "standard deviation of ln sigma in training", positive);
    schema.number("teacher.condition_dropout", &to.condition_dropout, "share of training samples that are shown without their condition, which guidance needs", share);
    schema.number("teacher.guidance", &to.guidance, "classifier-free guidance wherever the teacher is asked: samples, pairs, distribution matching; 1: none", at_least_0);
    schema.flag("teacher.bfloat16", &to.bfloat16, "the old form of precision = \"bf16\"");
}

void bind_students(Schema& schema, RunConfig& config) {
    schema.results_of({"partition", "tsm", "dm", "adm"});
    schema.number("partition.students", &config.partition.students, "K, the number of students", at_least_1);
    schema.text("partition.method", &config.partition.method, "how classes are split", {"consecutive", "random", "kmeans", "balanced", "file"});
    schema.text("partition.file", &config.partition.file, "the explicit partition (method = \"file\")");
    schema.results_of({"pairs", "dm", "adm"});
    schema.number("pairs.count", &config.pairs.count, "noise-sample pairs from the teacher; 0: none", at_least_0);
    schema.number("pairs.steps", &config.pairs.steps, "Heun steps a pair", at_least_1);
    schema.number("pairs.shard", &config.pairs.shard, "pairs a file", at_least_1);
    schema.results_of({"dm", "adm"});
    schema.text("pairs.path", &config.pairs.path, "an existing pair store; empty: make one");
    schema.text("pairs.filter", &config.pairs.filter, "pairs that a student sees: all, or those of its cell", {"all", "cell"});
    schema.results_of({"tsm", "dm", "adm"});
    schema.numbers("students.widths", &config.students.widths, "model_channels or hidden: one, or one a student; empty: the teacher's", at_least_1);
    schema.numbers("students.depths", &config.students.depths, "num_blocks or blocks: one, or one a student; empty: the teacher's", at_least_1);
    schema.numbers("students.channel_mult", &config.students.channel_mult, "width factors of all students' levels; empty: the teacher's", at_least_1);
    schema.text("students.start", &config.students.start,
                "branch: a finished stage of another run's student, e.g. runs/one/students/0/dm; empty: from teacher or TSM");
    schema.flag("students.tsm", &config.students.tsm, "start students of another size by teacher score matching");
    schema.number("students.lora_rank", &config.students.lora_rank, "students and their fake scores are low-rank deltas of this rank over the frozen teacher; 0: all weights learn", {.least = 0, .most = 65536});
    schema.number("students.parallel", &config.students.parallel, "students that train at once, each in its own process; no more than there are processors",
                  {.least = 1, .most = 1024, .affects_result = false});
    schema.number("students.threads", &config.students.threads, "threads of a student's process; all together no more than there are processors",
                  {.least = 1, .affects_result = false});
}

void bind_tsm(Schema& schema, TsmConfig& to) {
    schema.number("tsm.steps", &to.steps, "steps of teacher score matching", at_least_0);
    schema.number("tsm.batch", &to.batch, "samples a step", at_least_1);
    schema.number("tsm.micro_batch", &to.micro_batch, "samples computed at once, their gradients added up to the batch's; 0: all", at_least_0);
    bind_optimization(schema, "tsm", "", to.optimization);
}

void bind_matching(Schema& schema, const std::string& table, MatchingConfig& to, bool adversarial) {
    schema.number(table + ".steps", &to.steps, "generator updates; 0: the stage is skipped", at_least_0);
    schema.number(table + ".batch", &to.batch, "samples an update", at_least_1);
    schema.number(table + ".micro_batch", &to.micro_batch, "samples computed at once, their gradients added up to the batch's; 0: all", at_least_0);
    schema.number(table + ".fake_updates", &to.fake_updates, "fake-score updates a generator update (TTUR)", at_least_1);
    schema.number(table + ".critic_warmup", &to.critic_warmup,
                  "fake-score updates before the first generator update; -1: none where the fake score was trained beside the "
                  "weights that the stage begins with, else a tenth of the steps, 200 at most", {.least = -1, .most = 1e6});
    bind_optimization(schema, table, "", to.student);
    bind_optimization(schema, table, "fake_", to.fake);
    schema.text(table + ".loss", &to.loss, "distribution_matching (DMD) or sid (score identity)", {"distribution_matching", "sid"});
    schema.number(table + ".sid_alpha", &to.sid_alpha, "alpha of SiD", at_least_0);
    schema.text(table + ".regression", &to.regression, "loss on the pairs", {"none", "pseudo_huber", "perceptual", "lpips"});
    schema.number(table + ".regression_weight", &to.regression_weight, "weight of the loss on the pairs", at_least_0);
    schema.flag(table + ".keep_best", &to.keep_best, "end with the weights of the lowest probe distance, not the last");
    if (!adversarial) return;
    schema.text(table + ".divergence", &to.divergence, "weighs the gradient by the head's density ratio", distillation::divergences());
    schema.text(table + ".gan_weight", &to.gan_weight, "weight of the generator's GAN loss, or \"auto\": balance the gradient norms");
    schema.number(table + ".gan_balance", &to.gan_balance, "auto: GAN gradient norm over distribution-matching norm", positive);
    schema.number(table + ".discriminator_weight", &to.discriminator_weight, "weight of the head's loss beside the fake score's", positive);
    schema.number(table + ".gan_highest_level", &to.gan_highest_level, "the head sees samples noised by up to this level of 999", {.least = 0, .most = 999});
    schema.number(table + ".r1_weight", &to.r1_weight, "R1 penalty on the head; 0: none", at_least_0);
}

[[noreturn]] void refuse(const std::string& what) { throw core::UsageError(what); }

void check_list(const std::vector<std::int64_t>& list, std::int64_t students, const char* key) {
    const auto size = static_cast<std::int64_t>(list.size());
    if (size > 1 && size != students) {
        refuse(fmt::format("{} has {} entries; give one for all students or one for each of the {} (partition.students)", key, size, students));
    }
}

void check(const RunConfig& config) {
    inference::named_device(config.device);
    if (config.output.empty()) refuse("output is empty: name the run's directory, e.g. output=runs/first");
    if (config.teacher.bfloat16 && config.precision == "fp16") refuse("teacher.bfloat16 is the old form of precision = \"bf16\"; precision says \"fp16\"");
    if (config.data_path.empty()) refuse("data.path is empty: name the data set, e.g. data.path=toy:ring");
    if (config.teacher.sigma_min >= config.teacher.sigma_max) refuse("teacher.sigma_min must be below teacher.sigma_max");
    if (config.teacher.guidance != 1 && config.teacher.path.empty() && config.teacher.condition_dropout == 0) {
        refuse("teacher.guidance needs a teacher that knows what no condition is: set teacher.condition_dropout, e.g. to 0.1");
    }
    if (config.network.architecture == "sd_unet" && config.teacher.path.empty()) {
        refuse("network.architecture = \"sd_unet\" describes a teacher that exists: set teacher.path to its diffusers directory");
    }
    if (config.text.width % config.text.heads != 0) refuse("text.width must be a multiple of text.heads");
    const bool resized = !config.students.widths.empty() || !config.students.depths.empty() || !config.students.channel_mult.empty();
    if (config.students.lora_rank > 0 && resized) refuse("students.lora_rank is for students of the teacher's size; they stand on its weights");
    if (config.students.lora_rank > 0 && !config.students.start.empty()) refuse("students.lora_rank and students.start exclude each other: deltas stand on the teacher");
    check_list(config.students.widths, config.partition.students, "students.widths");
    check_list(config.students.depths, config.partition.students, "students.depths");
    for (const auto* matching : {&config.dm, &config.adm}) {
        if (matching->regression != "none" && config.pairs.count == 0 && config.pairs.path.empty()) {
            refuse("a regression loss needs pairs: set pairs.count or pairs.path, or regression = \"none\"");
        }
        if (matching->regression == "lpips" && config.lpips.backbone.empty()) {
            refuse("regression = \"lpips\" needs weights that are not ours to ship: set lpips.backbone and lpips.linear");
        }
    }
    for (const std::string& sampler : config.evaluation.samplers) {
        const auto sampling = inference::sampling_of(sampler, std::nullopt);
        if (!sampling || sampling->method == inference::Sampling::Method::one_step) {
            refuse(fmt::format("evaluate.samplers: \"{}\" is none for a teacher; give heun, ddim or stochastic with their steps", sampler));
        }
    }
    char* end = nullptr;
    const double weight = std::strtod(config.adm.gan_weight.c_str(), &end);
    if (config.adm.gan_weight != "auto" && (*end != '\0' || !(weight >= 0))) {
        refuse(fmt::format("adm.gan_weight is \"{}\"; it must be a number of at least 0, or \"auto\"", config.adm.gan_weight));
    }
}

/// No more threads than there are processors for them, in a process and in all students' processes together.
void within_processors(RunConfig& config) {
    StudentsConfig& students = config.students;
    config.threads = core::threads_within(config.threads, "threads");
    const std::int64_t usable = core::usable_processors(), together = std::min(students.parallel, config.partition.students);
    if (together * students.threads <= usable) return;
    if (together == 1) {
        students.threads = core::threads_within(students.threads, "students.threads");
        return;
    }
    core::threads_within(together * students.threads, "students.parallel x students.threads");
    students.parallel = std::min(together, usable);
    students.threads = std::min(students.threads, std::max<std::int64_t>(1, usable / students.parallel));
}

/// Float16's range needs it (training/loss_scale.h).
void scale_losses(RunConfig& config) {
    constexpr double first_scale = 65536;
    for (auto* each : {&config.teacher.optimization, &config.tsm.optimization, &config.dm.student, &config.dm.fake, &config.adm.student, &config.adm.fake}) {
        each->loss_scale = first_scale;
    }
}

}  // namespace

core::Schema schema_of(RunConfig& config) {
    const Schema::Range free_to_change{.least = 0, .affects_result = false};
    const std::vector<std::string> everything{"teacher", "partition", "pairs", "tsm", "dm", "adm", "evaluation"}, computed{"teacher", "pairs", "tsm", "dm", "adm"},
        trained{"teacher", "tsm", "dm", "adm"};
    Schema schema;
    schema.results_of({"teacher", "partition", "pairs", "tsm", "dm", "adm"});
    schema.number("seed", &config.seed, "every random number of the run follows from it", at_least_0);
    schema.text("output", &config.output, "the run's directory", {}, false);
    schema.results_of(computed);
    schema.text("device", &config.device, "cpu, cuda or cuda:N");
    schema.number("threads", &config.threads, "CPU threads; 0: as many as there are processors, and never more", free_to_change);
    schema.number("device_memory", &config.device_memory, "GiB of the device, which --dry-run plans for; 0: what is found (CPUs)", free_to_change);
    schema.text("precision", &config.precision, "of products and convolutions in training (weights and losses are float32); fp16 scales its losses; bf16 on a CPU that has none computes in fp32",
                {"fp32", "bf16", "fp16"});
    schema.results_of(trained);
    schema.flag("activation_checkpointing", &config.activation_checkpointing,
                "U-Nets' blocks keep their inputs alone and are computed again in the backward pass: less memory, a third more work");
    schema.number("checkpoint_seconds", &config.checkpoint_seconds, "time between checkpoints", free_to_change);
    schema.number("checkpoints_kept", &config.checkpoints_kept, "newest checkpoints that a stage keeps", {.least = 1, .most = 1e6, .affects_result = false});
    schema.number("log_every", &config.log_every, "steps between lines of metrics.jsonl", {.least = 1, .affects_result = false});
    schema.results_of(everything);
    schema.text("data.path", &config.data_path, "safetensors of points, a zip or tar of images, a folder of IDX files, images or tars, or toy:NAME");
    schema.results_of({"evaluation"});
    schema.text("data.test_path", &config.test_path, "held-out data for evaluation; empty: the test split of data.path");
    schema.number("data.classes", &config.data_classes, "classes that the data must have; 0: none, -1: as they come", {.least = -1, .affects_result = false});
    schema.numbers("data.shape", &config.data_shape, "shape that a sample must have, e.g. [3, 64, 64]; empty: as they come", {.least = 1, .affects_result = false});
    schema.results_of(trained);
    schema.flag("data.flips", &config.flips, "mirror half of the training images");
    schema.results_of(computed);
    bind_network(schema, config.network);
    bind_text(schema, config.text);
    bind_teacher(schema, config.teacher);
    bind_students(schema, config);
    schema.results_of({"tsm", "dm", "adm"});
    bind_tsm(schema, config.tsm);
    schema.results_of({"dm", "adm"});
    bind_matching(schema, "dm", config.dm, false);
    schema.results_of({"adm"});
    bind_matching(schema, "adm", config.adm, true);
    schema.results_of({"dm", "adm"});  // where a regression asks for it: stage_values_of
    schema.text("lpips.network", &config.lpips.network, "backbone of regression = \"lpips\"", {"vgg", "alex"});
    schema.text("lpips.backbone", &config.lpips.backbone, "its weights: torchvision's vgg16 or alexnet (.pth or safetensors)");
    schema.text("lpips.linear", &config.lpips.linear, "the lpips package's layer weights (vgg.pth or alex.pth); empty: they are in lpips.backbone");
    schema.results_of({"dm", "adm"});  // where keep_best chooses by it
    schema.number("probe.every", &config.probe.every, "steps between probe measurements and sample pictures; 0: only at the end", at_least_0);
    schema.number("probe.count", &config.probe.count, "samples a probe", at_least_1);
    schema.text("probe.classifier", &config.probe.classifier,
                "model directory of the classifier whose features choose the best weights, and regress with \"perceptual\"; empty: what evaluate.classifier was when the run began");
    schema.results_of({});
    schema.number("probe.sampler_every", &config.probe.sampler_every,
                  "as probe.every, for the teacher and TSM, whose samples take evaluate.steps steps of the sampler", at_least_0);
    schema.number("probe.batch", &config.probe.batch, "samples of a probe drawn together; 0: all", at_least_0);
    schema.results_of({"evaluation"});
    schema.number("evaluate.count", &config.evaluation.count, "samples an evaluation", {.least = 2});
    schema.number("evaluate.seeds", &config.evaluation.seeds, "evaluations with different seeds, from 1000 on", {.least = 1});
    schema.number("evaluate.steps", &config.evaluation.steps, "the teacher's Heun steps", {.least = 1});
    schema.texts("evaluate.samplers", &config.evaluation.samplers,
                 "further rows of the teacher, each by a sampler, e.g. [\"heun:64\", \"stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003\"]");
    schema.text("evaluate.classifier", &config.evaluation.classifier, "model directory of the classifier whose features measure images; empty: none");
    return schema;
}

namespace {

/// What a stage depends on, without what another key of it switches off.
nlohmann::json stage_values_of(const core::Schema& schema, const RunConfig& config, const std::string& stage) {
    nlohmann::json values = schema.values_of(stage);
    if (!config.uses_lpips()) values.erase("lpips");
    if (!config.chooses_by_probes(stage)) values.erase("probe");
    return values;
}

}  // namespace

bool RunConfig::chooses_by_probes(const std::string& stage) const {
    if (stage == "dm") return dm.keep_best;
    return stage == "adm" && ((dm.steps > 0 && dm.keep_best) || adm.keep_best);
}

bool RunConfig::uses_classifier(const std::string& stage) const {
    const bool perceptual = dm.regression == "perceptual" || (stage == "adm" && adm.regression == "perceptual");
    return chooses_by_probes(stage) || ((stage == "dm" || stage == "adm") && perceptual);
}

ops::Compute RunConfig::compute() const {
    if (precision == "bf16" && (device != "cpu" || ops::cpu_trains_in_bfloat16())) return {at::kBFloat16, activation_checkpointing};
    if (precision == "fp16") return {at::kHalf, activation_checkpointing};
    return {std::nullopt, activation_checkpointing};
}

LoadedConfig load_config(const std::string& path, const std::vector<std::string>& overrides) {
    LoadedConfig loaded{.config = {}, .path = path, .overrides = overrides};
    core::Schema schema = schema_of(loaded.config);
    loaded.defaults = schema.values();
    schema.read(path, overrides);
    check(loaded.config);
    if (loaded.config.teacher.bfloat16) loaded.config.precision = "bf16";
    if (loaded.config.precision == "fp16") scale_losses(loaded.config);
    for (const char* stage : {"teacher", "partition", "pairs", "tsm", "dm", "adm", "evaluation"}) loaded.stage_values[stage] = stage_values_of(schema, loaded.config, stage);
    using Source = core::Schema::Source;
    const Source classifier = schema.source("evaluate.classifier");
    loaded.classifier_is_meant = classifier == Source::command_line || (classifier == Source::file && schema.source("data.path") != Source::command_line);
    within_processors(loaded.config);
    return loaded;
}

}  // namespace atelier::cli
