#include "atelier/planning/run_plan.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "atelier/conditions/partition.h"
#include "atelier/core/error.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/prompt_list.h"
#include "atelier/data/toy_points.h"
#include "atelier/pipeline/budgets.h"
#include "atelier/pipeline/caption_table.h"
#include "atelier/pipeline/latent_data.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/stages.h"

namespace atelier::planning {

namespace {

namespace fs = std::filesystem;

bool data_exists(const std::string& path) {
    if (data::is_prompt_list(path)) return fs::exists(path.substr(path.find(':') + 1));
    return data::is_toy(path) || data::is_captioned(path) || fs::exists(path);
}

/// Samples are the teacher's latents; the data are only counted.
void describe_latents(const pipeline::RunConfig& config, RunPlan& plan) {
    const fs::path teacher = config.teacher.path;
    if (fs::exists(teacher)) {
        plan.spec = pipeline::latent_spec(config);
    } else {
        if (config.data_shape.size() != 3)
            throw core::UsageError(config.teacher.path +
                                   ": is not here; say what its latents are with data.shape, e.g. "
                                   "data.shape=[4,64,64]");
        plan.spec.kind = data::SampleSpec::Kind::latent;
        plan.spec.shape = config.data_shape;
    }
    plan.label_width = config.text.width;
    plan.captions = true;
    plan.data_description = config.data_path + " is not here";
    if (!data_exists(config.data_path)) return;
    const auto data = data::open_dataset({.path = config.data_path, .split = "train", .limit = 0});
    plan.samples = data->size();
    plan.shares = pipeline::known_shares(config, *data);
    plan.data_description = fmt::format("{}: {} {}", config.data_path, plan.samples,
                                        data->has_samples() ? "images" : "prompts");
}

void describe_data(const pipeline::RunConfig& config, RunPlan& plan) {
    if (pipeline::draws_latents(config)) return describe_latents(config, plan);
    if (data_exists(config.data_path)) {
        const auto data =
            data::open_dataset({.path = config.data_path, .split = "train", .limit = 0});
        plan.spec = data->spec();
        plan.classes = pipeline::class_count(*data);
        plan.label_width = pipeline::label_width(config, *data);
        plan.captions = !data->captions().empty();
        plan.samples = data->size();
        plan.shares = pipeline::known_shares(config, *data);
        plan.data_description = fmt::format("{}: {} samples", config.data_path, plan.samples);
        pipeline::check_data(plan.spec, plan.classes, config);
        return;
    }
    if (config.data_shape.empty() || config.data_classes < 0) {
        throw core::UsageError(
            fmt::format("{}: there are no data here, and the config does not say what they are; "
                        "set data.shape and data.classes, e.g. "
                        "data.shape=[3,64,64] data.classes=1000",
                        config.data_path));
    }
    plan.spec.shape = config.data_shape;
    if (plan.spec.shape.size() == 1) {
        plan.spec.kind = data::SampleSpec::Kind::points;
        plan.spec.offset.assign(static_cast<std::size_t>(plan.spec.shape[0]), 0.0);
    }
    plan.classes = plan.label_width = config.data_classes;
    plan.data_description =
        fmt::format("{} is not here; shape and classes are the config's", config.data_path);
}

nlohmann::json teacher_config(const pipeline::LoadedConfig& loaded, RunPlan& plan) {
    const pipeline::RunConfig& config = loaded.config;
    if (pipeline::draws_latents(config) && fs::exists(config.teacher.path)) {
        plan.teacher_description = config.teacher.path;
        return pipeline::latent_teacher_card(config).config;
    }
    if (!config.teacher.path.empty() && fs::exists(fs::path(config.teacher.path) / "config.json")) {
        const models::ModelCard teacher = models::read_card(config.teacher.path);
        pipeline::check_teacher(teacher, plan.spec, plan.label_width, plan.captions, config);
        plan.teacher_description = config.teacher.path;
        return teacher.config;
    }
    plan.teacher_description =
        config.teacher.path.empty()
            ? "trained in this run"
            : fmt::format("{} is not here; its network is the config's", config.teacher.path);
    return pipeline::teacher_json(config, plan.spec, plan.label_width);
}

PlannedNetwork network_of(const std::string& who, const nlohmann::json& config,
                          const std::string& where) {
    PlannedNetwork planned{who, config, networks::make_network(core::JsonObject(config, where))};
    const networks::Trace traced = networks::trace(planned.network);
    for (const graph::ParameterSpec& spec : traced.parameters)
        planned.parameters += graph::elements(spec.shape);
    planned.flops = traced.flops;
    return planned;
}

/// Students of the same size, which are planned together.
struct Group {
    nlohmann::json config;
    std::vector<std::int64_t> students;
};

std::vector<Group> groups_of(const pipeline::RunConfig& config, const nlohmann::json& teacher) {
    std::vector<Group> groups;
    for (std::int64_t k = 0; k < config.partition.students; ++k) {
        const nlohmann::json mine = pipeline::student_config(teacher, config.students, k);
        auto found = std::ranges::find(groups, mine, &Group::config);
        if (found == groups.end()) found = groups.insert(groups.end(), {mine, {}});
        found->students.push_back(k);
    }
    return groups;
}

Batch batch_of(std::int64_t micro_batch, std::int64_t batch, const pipeline::RunConfig& config) {
    const pipeline::ProbeConfig& probe = config.probe;
    const double sum = config.reduction == parallel::Reduction::exact ? exact_sum : float_sum;
    const std::int64_t drawn = probe.batch > 0 ? std::min(probe.batch, probe.count) : probe.count;
    return {static_cast<double>(micro_batch), micro_batch < batch ? sum : 0,
            static_cast<double>(drawn)};
}

/// What a stage's own description says.
PlannedStage described(const pipeline::Stage& of) {
    return {.kind = of.kind,
            .steps = of.work->steps,
            .batch = of.work->batch,
            .micro_batch = of.work->micro_batch,
            .fake_updates = of.work->fake_updates};
}

/// What training a network of this size holds where `shares` ranks divide it.
OptimizerState optimizer_of(const distillation::ScoreMatchingSettings& settings,
                            const networks::Network& network, int shares) {
    return {.averages = averages(settings.optimization),
            .share = share_of(networks::trace(network).parameters, shares)};
}

PlannedStage teacher_stage(const pipeline::RunConfig& config, const pipeline::Stage& of,
                           const PlannedNetwork& teacher, int shares) {
    const distillation::ScoreMatchingSettings& settings = config.teacher.training;
    PlannedStage stage = described(of);
    stage.real_images = static_cast<double>(settings.steps * settings.batch);
    const ExecutionMode configured = execution_mode(config, config.activation_checkpointing);
    stage.flops = score_matching_flops(network_cost(teacher.network, configured), nullptr,
                                       static_cast<double>(settings.batch), configured);
    stage.bytes = [config, network = teacher.network,
                   optimizer = optimizer_of(settings, teacher.network, shares)](std::int64_t n,
                                                                                bool recompute) {
        const ExecutionMode mode = execution_mode(config, recompute);
        return score_matching_bytes(network_cost(network, mode), nullptr, optimizer,
                                    batch_of(n, config.teacher.training.batch, config), mode);
    };
    return stage;
}

PlannedStage tsm_stage(const pipeline::RunConfig& config, const pipeline::Stage& of,
                       const PlannedNetwork& teacher, const PlannedNetwork& student, int shares) {
    const distillation::ScoreMatchingSettings& settings = config.tsm;
    PlannedStage stage = described(of);
    stage.real_images = static_cast<double>(settings.steps * settings.batch);
    const ExecutionMode configured = execution_mode(config, config.activation_checkpointing);
    const NetworkCost teacher_cost = network_cost(teacher.network, configured);
    stage.flops = score_matching_flops(network_cost(student.network, configured), &teacher_cost,
                                       static_cast<double>(settings.batch), configured);
    stage.bytes = [config, teacher = teacher.network, network = student.network,
                   optimizer = optimizer_of(settings, student.network, shares)](std::int64_t n,
                                                                                bool recompute) {
        const ExecutionMode mode = execution_mode(config, recompute);
        const NetworkCost teacher_cost = network_cost(teacher, mode);
        return score_matching_bytes(network_cost(network, mode), &teacher_cost, optimizer,
                                    batch_of(n, config.tsm.batch, config), mode);
    };
    return stage;
}

PlannedStage matching_stage(const pipeline::RunConfig& config, const pipeline::Stage& of,
                            const PlannedNetwork& teacher, const PlannedNetwork& student,
                            int shares) {
    const distillation::MatchingSettings& settings = config.matching(of.kind);
    PlannedStage stage = described(of);
    const double samples = static_cast<double>(settings.steps * settings.batch),
                 updates = static_cast<double>(settings.fake_updates);
    stage.generated_images = samples * (updates + 1);
    stage.real_images =
        (settings.adversarial ? samples * updates : 0) + (settings.uses_pairs() ? samples : 0);
    const DistillationRun run{config.teacher.guidance, config.students.lora_rank,
                              config.probe.every > 0, shares, student.config.value("steps", 1)};
    const ExecutionMode configured = execution_mode(config, config.activation_checkpointing);
    stage.flops = distillation_flops(
        distillation_cost(settings, teacher.network, student.network, configured, run),
        static_cast<double>(settings.batch), updates, configured);
    stage.bytes = [config, settings, run, teacher = teacher.network, student = student.network](
                      std::int64_t n, bool recompute) {
        const ExecutionMode mode = execution_mode(config, recompute);
        return distillation_bytes(distillation_cost(settings, teacher, student, mode, run),
                                  batch_of(n, settings.batch, config), mode);
    };
    return stage;
}

/// The steps of each student of a group in the stage that was planned last, where they differ.
void add_budgets(const pipeline::RunConfig& config, const Group& group,
                 const std::vector<pipeline::Stage>& stages, RunPlan& plan) {
    if (!plan.shares || plan.shares->empty()) return;
    PlannedStage& planned = plan.stages.back();
    for (const std::int64_t k : group.students) {
        const auto mine = std::ranges::find_if(stages, [&](const pipeline::Stage& stage) {
            return stage.kind == planned.kind && stage.student == k;
        });
        planned.steps_of_each.push_back(mine->work->steps);
    }
    const double mean =
                     static_cast<double>(planned.all_steps()) / static_cast<double>(planned.times),
                 of_equal = mean / static_cast<double>(config.matching(planned.kind).steps);
    planned.real_images *= of_equal;
    planned.generated_images *= of_equal;
    planned.steps = std::llround(mean);
}

/// Plans the stages of every group of students of one size.
void add_students(const pipeline::LoadedConfig& loaded, const std::vector<pipeline::Stage>& stages,
                  int shares, RunPlan& plan) {
    const pipeline::RunConfig& config = loaded.config;
    const nlohmann::json teacher_json = plan.networks.front().config;
    const auto add = [&](const pipeline::RunConfig& of, const std::string& who,
                         const Group& group) {
        plan.networks.push_back(network_of(who, group.config, loaded.path));
        const PlannedNetwork &teacher = plan.networks.front(), &student = plan.networks.back();
        for (const pipeline::Stage& stage : stages) {
            if (stage.student != group.students.front()) continue;
            const bool tsm = stage.kind == pipeline::StageKind::tsm;
            if (tsm && !pipeline::needs_tsm(group.config, teacher_json, of)) continue;
            plan.stages.push_back(tsm ? tsm_stage(of, stage, teacher, student, shares)
                                      : matching_stage(of, stage, teacher, student, shares));
            plan.stages.back().network = plan.networks.size() - 1;
            plan.stages.back().of_trunk = stage.student == pipeline::trunk;
            plan.stages.back().times = static_cast<std::int64_t>(group.students.size());
            if (!tsm && !plan.stages.back().of_trunk) add_budgets(of, group, stages, plan);
        }
    };
    const std::vector<Group> groups = groups_of(config, teacher_json);
    if (config.trunk.exists())
        add(config.of_trunk(), "trunk", {groups.front().config, {pipeline::trunk}});
    for (const Group& group : groups)
        add(config,
            fmt::format("{} {}", group.students.size() > 1 ? "students" : "student",
                        fmt::join(group.students, ", ")),
            group);
}

}  // namespace

ExecutionMode execution_mode(const pipeline::RunConfig& config, bool recompute) {
    const bool low = config.precision == "bf16" || config.precision == "fp16";
    return {config.device != "cpu", low, recompute};
}

RunPlan plan_run(const pipeline::LoadedConfig& loaded, std::int64_t ranks) {
    const pipeline::RunConfig& config = loaded.config;
    const int shares = config.optimizer_sharding ? static_cast<int>(ranks) : 1;
    RunPlan plan;
    describe_data(config, plan);
    if (!plan.captions) {
        conditions::PartitionRequest request;
        request.students = config.partition.students;
        request.classes = std::max<std::int64_t>(1, plan.classes);
        conditions::partition_classes(request);
    }
    plan.networks.push_back(network_of("teacher", teacher_config(loaded, plan), loaded.path));
    if (config.students.budget == pipeline::Budget::equal) plan.shares.emplace();
    const std::vector<pipeline::Stage> stages =
        pipeline::stages(config, plan.shares.value_or(std::vector<double>{}));
    for (const pipeline::Stage& stage : stages) {
        if (stage.kind == pipeline::StageKind::teacher && stage.work)
            plan.stages.push_back(teacher_stage(config, stage, plan.networks.front(), shares));
    }
    add_students(loaded, stages, shares, plan);
    return plan;
}

}  // namespace atelier::planning
