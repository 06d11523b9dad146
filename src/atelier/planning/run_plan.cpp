#include "atelier/planning/run_plan.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "atelier/backends/torch/low_rank.h"
#include "atelier/conditions/partition.h"
#include "atelier/core/error.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/prompt_list.h"
#include "atelier/data/toy_points.h"
#include "atelier/pipeline/caption_table.h"
#include "atelier/pipeline/latent_data.h"
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
        return pipeline::latent_teacher_json(config);
    }
    if (!config.teacher.path.empty() && fs::exists(fs::path(config.teacher.path) / "config.json")) {
        const models::Model teacher = models::read_model_config(config.teacher.path);
        pipeline::check_teacher(teacher, plan.spec, plan.label_width, plan.captions, config);
        plan.teacher_description = config.teacher.path;
        return teacher.config;
    }
    plan.teacher_description =
        config.teacher.path.empty()
            ? "trained in this run"
            : fmt::format("{} is not here; its network is the config's", config.teacher.path);
    nlohmann::json json = pipeline::network_json(config.network, plan.spec, plan.label_width);
    json["sigma_data"] = config.teacher.sigma_data;
    return json;
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

Batch batch_of(std::int64_t micro_batch, std::int64_t batch, const pipeline::ProbeConfig& probe) {
    const std::int64_t drawn = probe.batch > 0 ? std::min(probe.batch, probe.count) : probe.count;
    return {static_cast<double>(micro_batch), micro_batch < batch, static_cast<double>(drawn)};
}

std::int64_t effective_micro_batch(std::int64_t batch, std::int64_t micro_batch) {
    return micro_batch > 0 && micro_batch < batch ? micro_batch : batch;
}

double averages(const distillation::Optimization& optimization) {
    return (optimization.ema_decay > 0 ? 1.0 : 0.0) +
           static_cast<double>(optimization.more_ema_decays.size());
}

PlannedStage teacher_stage(const pipeline::RunConfig& config, const PlannedNetwork& teacher) {
    const pipeline::TeacherConfig& settings = config.teacher;
    PlannedStage stage{.name = "teacher",
                       .steps = settings.steps,
                       .batch = settings.batch,
                       .micro_batch = effective_micro_batch(settings.batch, settings.micro_batch)};
    stage.real_images = static_cast<double>(settings.steps * settings.batch);
    const ExecutionMode configured = execution_mode(config, config.activation_checkpointing);
    stage.flops = score_matching_flops(network_cost(teacher.network, configured), nullptr,
                                       static_cast<double>(settings.batch), configured);
    stage.bytes = [config, network = teacher.network](std::int64_t n, bool recompute) {
        const ExecutionMode mode = execution_mode(config, recompute);
        return score_matching_bytes(network_cost(network, mode), nullptr,
                                    {averages(config.teacher.optimization)},
                                    batch_of(n, config.teacher.batch, config.probe), mode);
    };
    return stage;
}

PlannedStage tsm_stage(const pipeline::RunConfig& config, const PlannedNetwork& teacher,
                       const PlannedNetwork& student) {
    const pipeline::TsmConfig& settings = config.tsm;
    PlannedStage stage{.name = "tsm",
                       .steps = settings.steps,
                       .batch = settings.batch,
                       .micro_batch = effective_micro_batch(settings.batch, settings.micro_batch)};
    stage.real_images = static_cast<double>(settings.steps * settings.batch);
    const ExecutionMode configured = execution_mode(config, config.activation_checkpointing);
    const NetworkCost teacher_cost = network_cost(teacher.network, configured);
    stage.flops = score_matching_flops(network_cost(student.network, configured), &teacher_cost,
                                       static_cast<double>(settings.batch), configured);
    stage.bytes = [config, teacher = teacher.network, network = student.network](std::int64_t n,
                                                                                 bool recompute) {
        const ExecutionMode mode = execution_mode(config, recompute);
        const NetworkCost teacher_cost = network_cost(teacher, mode);
        return score_matching_bytes(network_cost(network, mode), &teacher_cost,
                                    {averages(config.tsm.optimization)},
                                    batch_of(n, config.tsm.batch, config.probe), mode);
    };
    return stage;
}

DistillationCost distillation_cost(const pipeline::RunConfig& config,
                                   const pipeline::MatchingConfig& settings, bool gan,
                                   const networks::Network& teacher,
                                   const networks::Network& student, const ExecutionMode& mode) {
    DistillationCost cost{network_cost(student, mode),
                          network_cost(teacher, mode),
                          network_cost(student, mode),
                          {},
                          {},
                          gan};
    if (gan) {
        cost.encoder = network_cost(student, mode, networks::TraceScope::encoder_only);
        cost.head = head_cost(student, mode);
    }
    if (config.teacher.guidance != 1) cost.teacher = guided(cost.teacher);
    if (config.students.lora_rank > 0) {
        double deltas = 0;
        for (const graph::ParameterSpec& spec : backends::low_rank_specs(
                 networks::trace(student).parameters, config.students.lora_rank))
            deltas += static_cast<double>(graph::elements(spec.shape));
        for (NetworkCost* network : {&cost.student, &cost.fake, &cost.encoder})
            *network = low_rank(*network, deltas);
    }
    cost.score_identity = settings.loss == "sid";
    cost.regression = settings.regression != "none";
    cost.optimizer = {averages(settings.student), settings.keep_best && config.probe.every > 0};
    return cost;
}

PlannedStage matching_stage(const pipeline::RunConfig& config, const std::string& name,
                            const PlannedNetwork& teacher, const PlannedNetwork& student) {
    const bool gan = name == "adm";
    const pipeline::MatchingConfig& settings = gan ? config.adm : config.dm;
    PlannedStage stage{.name = name,
                       .steps = settings.steps,
                       .batch = settings.batch,
                       .micro_batch = effective_micro_batch(settings.batch, settings.micro_batch)};
    const double samples = static_cast<double>(settings.steps * settings.batch),
                 updates = static_cast<double>(settings.fake_updates);
    stage.fake_updates = settings.fake_updates;
    stage.generated_images = samples * (updates + 1);
    stage.real_images =
        (gan ? samples * updates : 0) + (settings.regression != "none" ? samples : 0);
    const ExecutionMode configured = execution_mode(config, config.activation_checkpointing);
    stage.flops = distillation_flops(
        distillation_cost(config, settings, gan, teacher.network, student.network, configured),
        static_cast<double>(settings.batch), updates, configured);
    stage.bytes = [config, settings, gan, teacher = teacher.network, student = student.network](
                      std::int64_t n, bool recompute) {
        const ExecutionMode mode = execution_mode(config, recompute);
        return distillation_bytes(distillation_cost(config, settings, gan, teacher, student, mode),
                                  batch_of(n, settings.batch, config.probe), mode);
    };
    return stage;
}

void add_students(const pipeline::LoadedConfig& loaded, RunPlan& plan) {
    const pipeline::RunConfig& config = loaded.config;
    const nlohmann::json teacher_json = plan.networks.front().config;
    for (const Group& group : groups_of(config, teacher_json)) {
        plan.networks.push_back(
            network_of(fmt::format("{} {}", group.students.size() > 1 ? "students" : "student",
                                   fmt::join(group.students, ", ")),
                       group.config, loaded.path));
        const PlannedNetwork &teacher = plan.networks.front(), &student = plan.networks.back();
        const auto add = [&](PlannedStage stage) {
            stage.network = plan.networks.size() - 1;
            stage.times = static_cast<std::int64_t>(group.students.size());
            plan.stages.push_back(std::move(stage));
        };
        if (pipeline::needs_tsm(group.config, teacher_json, config))
            add(tsm_stage(config, teacher, student));
        if (config.dm.steps > 0) add(matching_stage(config, "dm", teacher, student));
        if (config.adm.steps > 0) add(matching_stage(config, "adm", teacher, student));
    }
}

}  // namespace

ExecutionMode execution_mode(const pipeline::RunConfig& config, bool recompute) {
    return {config.device.starts_with("cuda"), config.precision != "fp32", recompute};
}

RunPlan plan_run(const pipeline::LoadedConfig& loaded) {
    const pipeline::RunConfig& config = loaded.config;
    RunPlan plan;
    describe_data(config, plan);
    if (!plan.captions) {
        conditions::PartitionRequest request;
        request.students = config.partition.students;
        request.classes = std::max<std::int64_t>(1, plan.classes);
        conditions::make_partition(request);
    }
    plan.networks.push_back(network_of("teacher", teacher_config(loaded, plan), loaded.path));
    if (config.teacher.path.empty())
        plan.stages.push_back(teacher_stage(config, plan.networks.front()));
    add_students(loaded, plan);
    return plan;
}

}  // namespace atelier::planning
