#include "atelier/cli/run_plan.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "atelier/cli/caption_table.h"
#include "atelier/cli/latent_data.h"
#include "atelier/cli/stages.h"
#include "atelier/conditions/partition.h"
#include "atelier/core/error.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/prompt_list.h"
#include "atelier/data/toy_points.h"
#include "atelier/ops/low_rank.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

bool data_are_here(const std::string& path) {
    if (data::is_prompt_list(path)) return fs::exists(path.substr(path.find(':') + 1));
    return data::is_toy(path) || data::is_captioned(path) || fs::exists(path);
}

/// The teacher's latents, whatever the data are; those are only counted.
void look_at_latents(const RunConfig& config, RunPlan& plan) {
    const fs::path teacher = config.teacher.path;
    if (fs::exists(teacher)) {
        plan.form = latent_form(config);
    } else {
        if (config.data_shape.size() != 3) throw core::UsageError(config.teacher.path + ": is not here; say what its latents are with data.shape, e.g. data.shape=[4,64,64]");
        plan.form.kind = models::DataForm::Kind::latent;
        plan.form.shape = config.data_shape;
    }
    plan.label_width = config.text.width;
    plan.captions = true;
    plan.data_words = config.data_path + " is not here";
    if (!data_are_here(config.data_path)) return;
    const auto data = data::open_dataset({.path = config.data_path, .split = "train", .limit = 0});
    plan.samples = data->size();
    plan.data_words = fmt::format("{}: {} {}", config.data_path, plan.samples, data->has_samples() ? "images" : "prompts");
}

void look_at_data(const RunConfig& config, RunPlan& plan) {
    if (draws_latents(config)) return look_at_latents(config, plan);
    if (data_are_here(config.data_path)) {
        const auto data = data::open_dataset({.path = config.data_path, .split = "train", .limit = 0});
        plan.form = data->form();
        plan.classes = class_count(*data);
        plan.label_width = label_width(config, *data);
        plan.captions = !data->captions().empty();
        plan.samples = data->size();
        plan.data_words = fmt::format("{}: {} samples", config.data_path, plan.samples);
        check_data(plan.form, plan.classes, config);
        return;
    }
    if (config.data_shape.empty() || config.data_classes < 0) {
        throw core::UsageError(fmt::format("{}: there are no data here, and the config does not say what they are; set data.shape and data.classes, e.g. "
                                           "data.shape=[3,64,64] data.classes=1000", config.data_path));
    }
    plan.form.shape = config.data_shape;
    if (plan.form.shape.size() == 1) {
        plan.form.kind = models::DataForm::Kind::points;
        plan.form.offset.assign(static_cast<std::size_t>(plan.form.shape[0]), 0.0);
    }
    plan.classes = plan.label_width = config.data_classes;
    plan.data_words = fmt::format("{} is not here; shape and classes are the config's", config.data_path);
}

nlohmann::json teacher_config(const LoadedConfig& loaded, RunPlan& plan) {
    const RunConfig& config = loaded.config;
    if (draws_latents(config) && fs::exists(config.teacher.path)) {
        plan.teacher_words = config.teacher.path;
        return latent_teacher_json(config);
    }
    if (!config.teacher.path.empty() && fs::exists(fs::path(config.teacher.path) / "config.json")) {
        const models::Model teacher = models::read_model_config(config.teacher.path);
        check_teacher(teacher, plan.form, plan.label_width, plan.captions, config);
        plan.teacher_words = config.teacher.path;
        return teacher.config;
    }
    plan.teacher_words = config.teacher.path.empty() ? "trained in this run" : fmt::format("{} is not here; its network is the config's", config.teacher.path);
    nlohmann::json json = network_json(config.network, plan.form, plan.label_width);
    json["sigma_data"] = config.teacher.sigma_data;
    return json;
}

PlannedNetwork network_of(const std::string& who, const nlohmann::json& config, const std::string& where) {
    PlannedNetwork planned{who, config, networks::make_network(core::JsonObject(config, where))};
    const ops::ShapeOps walked = networks::trace(planned.network);
    for (const ops::ParameterSpec& spec : walked.parameters) planned.parameters += ops::elements(spec.shape);
    planned.flops = walked.flops;
    return planned;
}

/// Students of one size are planned together.
struct Group {
    nlohmann::json config;
    std::vector<std::int64_t> students;
};

std::vector<Group> groups_of(const RunConfig& config, const nlohmann::json& teacher) {
    std::vector<Group> groups;
    for (std::int64_t k = 0; k < config.partition.students; ++k) {
        const nlohmann::json mine = sized(teacher, config.students, k);
        auto found = std::ranges::find(groups, mine, &Group::config);
        if (found == groups.end()) found = groups.insert(groups.end(), {mine, {}});
        found->students.push_back(k);
    }
    return groups;
}

Batch batch_of(std::int64_t at_once, std::int64_t batch, const ProbeConfig& probe) {
    const std::int64_t drawn = probe.batch > 0 ? std::min(probe.batch, probe.count) : probe.count;
    return {static_cast<double>(at_once), at_once < batch, static_cast<double>(drawn)};
}

std::int64_t at_once(std::int64_t batch, std::int64_t micro) { return micro > 0 && micro < batch ? micro : batch; }

double averages(const distillation::Optimization& optimization) {
    return (optimization.ema_decay > 0 ? 1.0 : 0.0) + static_cast<double>(optimization.more_ema_decays.size());
}

PlannedStage teacher_stage(const RunConfig& config, const PlannedNetwork& teacher) {
    const TeacherConfig& from = config.teacher;
    PlannedStage stage{.name = "teacher", .steps = from.steps, .batch = from.batch, .micro_batch = at_once(from.batch, from.micro_batch)};
    stage.real_images = static_cast<double>(from.steps * from.batch);
    const Conditions now = conditions_of(config, config.activation_checkpointing);
    stage.flops = score_matching_flops(burden_of(teacher.network, now), nullptr, static_cast<double>(from.batch), now);
    stage.bytes = [config, network = teacher.network](std::int64_t n, bool recompute) {
        const Conditions how = conditions_of(config, recompute);
        return score_matching_bytes(burden_of(network, how), nullptr, {averages(config.teacher.optimization)}, batch_of(n, config.teacher.batch, config.probe), how);
    };
    return stage;
}

PlannedStage tsm_stage(const RunConfig& config, const PlannedNetwork& teacher, const PlannedNetwork& student) {
    const TsmConfig& from = config.tsm;
    PlannedStage stage{.name = "tsm", .steps = from.steps, .batch = from.batch, .micro_batch = at_once(from.batch, from.micro_batch)};
    stage.real_images = static_cast<double>(from.steps * from.batch);
    const Conditions now = conditions_of(config, config.activation_checkpointing);
    const Burden master = burden_of(teacher.network, now);
    stage.flops = score_matching_flops(burden_of(student.network, now), &master, static_cast<double>(from.batch), now);
    stage.bytes = [config, teacher = teacher.network, network = student.network](std::int64_t n, bool recompute) {
        const Conditions how = conditions_of(config, recompute);
        const Burden by = burden_of(teacher, how);
        return score_matching_bytes(burden_of(network, how), &by, {averages(config.tsm.optimization)}, batch_of(n, config.tsm.batch, config.probe), how);
    };
    return stage;
}

Matching matching_of(const RunConfig& config, const MatchingConfig& from, bool gan, const networks::Network& teacher, const networks::Network& student,
                     const Conditions& how) {
    Matching matching{burden_of(student, how), burden_of(teacher, how), burden_of(student, how), {}, {}, gan};
    if (gan) {
        matching.encoder = burden_of(student, how, networks::Extent::encoder);
        matching.head = burden_of_head(student, how);
    }
    if (config.teacher.guidance != 1) matching.teacher = guided(matching.teacher);
    if (config.students.lora_rank > 0) {
        double deltas = 0;
        for (const ops::ParameterSpec& spec : ops::low_rank_specs(networks::trace(student).parameters, config.students.lora_rank)) deltas += static_cast<double>(ops::elements(spec.shape));
        for (Burden* learner : {&matching.student, &matching.fake, &matching.encoder}) *learner = low_rank(*learner, deltas);
    }
    matching.score_identity = from.loss == "sid";
    matching.regression = from.regression != "none";
    matching.standing = {averages(from.student), from.keep_best && config.probe.every > 0};
    return matching;
}

PlannedStage matching_stage(const RunConfig& config, const std::string& name, const PlannedNetwork& teacher, const PlannedNetwork& student) {
    const bool gan = name == "adm";
    const MatchingConfig& from = gan ? config.adm : config.dm;
    PlannedStage stage{.name = name, .steps = from.steps, .batch = from.batch, .micro_batch = at_once(from.batch, from.micro_batch)};
    const double samples = static_cast<double>(from.steps * from.batch), updates = static_cast<double>(from.fake_updates);
    stage.fake_updates = from.fake_updates;
    stage.generated_images = samples * (updates + 1);
    stage.real_images = (gan ? samples * updates : 0) + (from.regression != "none" ? samples : 0);
    const Conditions now = conditions_of(config, config.activation_checkpointing);
    stage.flops = matching_flops(matching_of(config, from, gan, teacher.network, student.network, now), static_cast<double>(from.batch), updates, now);
    stage.bytes = [config, from, gan, teacher = teacher.network, student = student.network](std::int64_t n, bool recompute) {
        const Conditions how = conditions_of(config, recompute);
        return matching_bytes(matching_of(config, from, gan, teacher, student, how), batch_of(n, from.batch, config.probe), how);
    };
    return stage;
}

void add_students(const LoadedConfig& loaded, RunPlan& plan) {
    const RunConfig& config = loaded.config;
    const nlohmann::json teacher = plan.networks.front().config;
    for (const Group& group : groups_of(config, teacher)) {
        plan.networks.push_back(network_of(fmt::format("{} {}", group.students.size() > 1 ? "students" : "student", fmt::join(group.students, ", ")), group.config,
                                           loaded.path));
        const PlannedNetwork &master = plan.networks.front(), &student = plan.networks.back();
        const auto add = [&](PlannedStage stage) {
            stage.network = plan.networks.size() - 1;
            stage.times = static_cast<std::int64_t>(group.students.size());
            plan.stages.push_back(std::move(stage));
        };
        if (needs_tsm(group.config, teacher, config)) add(tsm_stage(config, master, student));
        if (config.dm.steps > 0) add(matching_stage(config, "dm", master, student));
        if (config.adm.steps > 0) add(matching_stage(config, "adm", master, student));
    }
}

}  // namespace

Conditions conditions_of(const RunConfig& config, bool recompute) { return {config.device.starts_with("cuda"), config.precision != "fp32", recompute}; }

RunPlan plan_of(const LoadedConfig& loaded) {
    const RunConfig& config = loaded.config;
    RunPlan plan;
    look_at_data(config, plan);
    if (!plan.captions) {
        conditions::PartitionRequest request;
        request.students = config.partition.students;
        request.classes = std::max<std::int64_t>(1, plan.classes);
        conditions::make_partition(request);
    }
    plan.networks.push_back(network_of("teacher", teacher_config(loaded, plan), loaded.path));
    if (config.teacher.path.empty()) plan.stages.push_back(teacher_stage(config, plan.networks.front()));
    add_students(loaded, plan);
    return plan;
}

}  // namespace atelier::cli
