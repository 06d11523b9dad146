#include <functional>

#include "atelier/core/log.h"
#include "atelier/metrics/caption_measuring.h"
#include "atelier/metrics/clip.h"
#include "atelier/metrics/measuring.h"
#include "atelier/pipeline/latent_data.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/report/comparison.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t first_seed = 1000;  // apart from the seeds that users sample with

metrics::EvaluationConfig evaluation_config(const RunContext& context) {
    const RunConfig& config = context.config();
    metrics::EvaluationConfig eval_config;
    eval_config.data = config.test_path.empty() ? config.data_path : config.test_path;
    eval_config.classifier = config.evaluation.classifier;
    eval_config.attributes = config.evaluation.attributes;
    eval_config.inception = config.evaluation.inception;
    eval_config.dinov2 = config.evaluation.dinov2;
    eval_config.clip_features = config.evaluation.clip_features;
    eval_config.real = config.evaluation.real;
    eval_config.device = context.device();
    eval_config.count = config.evaluation.count;
    if (!config.teacher.path.empty())
        eval_config.earlier = fs::path(config.teacher.path).parent_path() / "evaluation.json";
    eval_config.seeds.clear();
    for (std::int64_t i = 0; i < config.evaluation.seeds; ++i)
        eval_config.seeds.push_back(static_cast<std::uint64_t>(first_seed + i));
    if (!context.shard().whole())
        eval_config.parts = std::make_shared<metrics::EvaluationParts>(
            context.output() / "evaluation-parts", context.path_of(StageKind::evaluation),
            context.shard());
    return eval_config;
}

/// What the metrics depend on besides the models: the config's evaluation settings, and hashes of
/// the data and classifier that it names.
nlohmann::json evaluation_identity(RunContext& context,
                                   const metrics::EvaluationConfig& eval_config) {
    nlohmann::json settings = context.loaded().values_of(StageKind::evaluation);
    settings.erase("data");               // compared by its hash
    if (settings.contains("evaluate")) {  // keys that are unknown to runs made before them
        if (eval_config.attributes.empty()) settings["evaluate"].erase("attributes");
        for (const auto& [key, value] : {std::pair{"inception", eval_config.inception},
                                         {"dinov2", eval_config.dinov2},
                                         {"clip_features", eval_config.clip_features},
                                         {"real", eval_config.real}}) {
            if (value.empty()) settings["evaluate"].erase(key);
        }
    }
    nlohmann::json by{
        {"settings", settings},
        {"seeds", eval_config.seeds},
        {"data", eval_config.data},
        {"data_hash",
         data::open_dataset({.path = eval_config.data, .split = eval_config.split, .limit = 0})
             ->hash()}};
    if (context.raw_data()->spec().kind != data::SampleSpec::Kind::image) return by;
    const fs::path classifier = eval_config.classifier;
    std::vector<fs::path> files;
    if (!classifier.empty())
        files = {classifier / "config.json", classifier / "classifier.safetensors"};
    for (const std::string& weights : {eval_config.inception, eval_config.dinov2})
        if (!weights.empty()) files.emplace_back(weights);
    if (!eval_config.clip_features.empty())
        by["clip_features"] = metrics::Clip(eval_config.clip_features).hash();
    if (!eval_config.real.empty()) by["real_hash"] = metrics::open_real(eval_config)->hash();
    if (!context.raw_data()->captions().empty()) {
        if (!eval_config.attributes.empty()) files.emplace_back(eval_config.attributes);
        const metrics::CaptionAttributes named = metrics::attributes_of(eval_config);
        for (const metrics::CaptionAttribute& attribute : named.attributes)
            files.push_back(attribute.classifier / "classifier.safetensors");
    }
    if (files.empty()) return by;
    by["classifier"] = hash_of_files(files);
    return by;
}

/// The identity without the data's path, which may change.
nlohmann::json without_data_path(nlohmann::json identity) {
    if (identity.is_object()) identity.erase("data");
    return identity;
}

/// Evaluates `models` (their hashes and how they are sampled), unless the run's evaluation.json
/// already holds the result of the same evaluation.
void evaluate_once(RunContext& context, const nlohmann::json& models,
                   const metrics::EvaluationConfig& eval_config,
                   const std::function<nlohmann::json()>& evaluate) {
    const auto path = context.path_of(StageKind::evaluation);
    nlohmann::json identity = evaluation_identity(context, eval_config);
    identity.update(models);
    if (fs::exists(path) &&
        without_data_path(core::read_json(path).value("identity", nlohmann::json::object())) ==
            without_data_path(identity))
        return;
    const std::string seeds =
        eval_config.seeds.size() == 1
            ? fmt::format("seed {}", first_seed)
            : fmt::format("seeds {} to {}", first_seed, eval_config.seeds.back());
    core::log::info(
        "evaluation: {} samples, {} (other seeds draw other samples: figures of `atelier "
        "evaluate`, which begins with seed 0, differ by chance)",
        eval_config.count, seeds);
    nlohmann::json results = metrics::with_parts(eval_config, evaluate);
    if (results.is_null()) {
        core::log::info("evaluation: {}", eval_config.parts->standing());
        return;
    }
    results["identity"] = identity;
    results["reference_is_training_data"] = is_training_data(context.config());
    core::write_json(path, results);
    if (eval_config.parts) eval_config.parts->remove();
    core::log::info("{}", text_of(report::comparison_table(results)));
}

/// The teacher's rows, by their samplers: evaluate.steps steps of Heun's method, and each of
/// evaluate.samplers.
std::vector<std::pair<std::string, std::string>> teacher_rows(const EvaluationConfig& config) {
    std::vector<std::pair<std::string, std::string>> rows{
        {"teacher", fmt::format("heun:{}", config.steps)}};
    for (const std::string& sampler : config.samplers)
        rows.emplace_back("teacher, " + sampler, sampler);
    return rows;
}

void evaluate(RunContext& context, const metrics::EvaluationConfig& eval_config,
              const std::string& students) {
    const inference::Engine engine{.device = context.device()};
    const auto ensemble =
        inference::Pipeline::load(context.path_of(StageKind::ensemble), {.engine = engine});
    std::vector<std::unique_ptr<inference::Pipeline>> teachers;
    metrics::EvaluatedModels targets;
    for (const auto& [name, sampler] : teacher_rows(context.config().evaluation)) {
        teachers.push_back(inference::Pipeline::load(context.path_of(StageKind::teacher),
                                                     {.engine = engine, .sampler = sampler}));
        targets.emplace_back(name, teachers.back().get());
        // The students come second, where readers of evaluation.json expect them.
        if (targets.size() == 1) targets.emplace_back(students, ensemble.get());
    }
    const bool prompts = ensemble->reads_prompts();
    nlohmann::json of{{"ensemble", prompts ? nlohmann::json(ensemble->hashes())
                                           : nlohmann::json(ensemble->hash())},
                      {"teacher", prompts ? nlohmann::json(teachers.front()->hashes())
                                          : nlohmann::json(teachers.front()->hash())}};
    if (prompts) of["guidance"] = *teachers.front()->guidance();
    evaluate_once(context, of, eval_config, [&] { return measure(eval_config, targets); });
}

}  // namespace

void make_evaluation(RunContext& context) {
    const RunConfig& config = context.config();
    const metrics::EvaluationConfig eval_config = evaluation_config(context);
    if (draws_latents(config)) {
        core::log::info(
            "evaluation skipped: images of prompts are evaluated separately with atelier evaluate, "
            "once "
            "the students are done");
        return;
    }
    evaluate(context, eval_config, fmt::format("K={} students", config.partition.students));
}

}  // namespace atelier::pipeline
