#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/distillation/score_matching.h"
#include "atelier/models/latent_model.h"
#include "atelier/pipeline/caption_table.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/real_batches.h"

namespace atelier::pipeline {

namespace {

constexpr const char* continued =
    "continued_from";  // note: the step at which the teacher was finished before

/// The guidance that a config asks for, if any.
std::optional<double> guidance_of(const RunConfig& config) {
    if (config.teacher.guidance == 1) return std::nullopt;
    return config.teacher.guidance;
}

/// Splits the trained model into the text tower and the denoiser: from here on captions are
/// embedded once.
void split_off_text_tower(const std::filesystem::path& folder, models::Model& model,
                          training::LoopResult& result) {
    finish_text_tower(folder, model.config.at("text"), result.weights);
    model.config.erase("text");
    model.condition = models::ConditionKind::text;
    model.provenance.prior.reset();
    for (backends::Parameters* weights : {&result.weights, &result.raw_weights})
        *weights = without_text_tower(*weights);
    for (auto& [decay, average] : result.more_averages) average = without_text_tower(average);
}

/// Where a finished teacher's checkpoints are gone, continues from its weights, with new moments
/// and averages.
void continue_from_weights(const training::StageFolder& stage, distillation::Stage& matching,
                           const training::LoopSettings& loop, models::Model& model,
                           std::int64_t steps) {
    const std::filesystem::path finished = stage.path() / "model.safetensors",
                                text = stage.path() / "text_encoder" / "model.safetensors";
    const bool possible = !training::has_checkpoint(loop) && std::filesystem::exists(finished);
    if (loop.ranks->from_leader(possible ? "possible" : "").empty()) return;
    const auto whole = [&](const std::string& name) {
        const std::filesystem::path file = stage.path() / ("model" + name + ".safetensors");
        backends::Parameters weights =
            backends::read_parameters(std::filesystem::exists(file) ? file : finished);
        if (std::filesystem::exists(text)) weights.merge(backends::read_parameters(text), "");
        backends::check_against(weights, model.specs(), file.string());
        return weights;
    };
    core::log::info("teacher: no checkpoint is left; it goes on from its weights");
    model.parameters.copy_from(whole("-raw"));
    training::begin_from_weights(matching, loop, steps, whole(""),
                                 [&](const std::string& decay) { return whole("-ema-" + decay); });
}

void train(RunContext& context, const training::StageFolder& stage) {
    const auto& data = context.data();
    nlohmann::json json =
        teacher_json(context.config(), data->spec(), label_width(context.config(), *data));
    parallel::Ranks& ranks = context.ranks();
    if (!data->captions().empty()) {
        json["text"] = ranks.leader_first(
            "tokenizer", [&] { return begin_text_tower(context, *data, stage.path()); });
    }
    models::Model model = models::init_model(json, context.seed());
    model.parameters = model.parameters.to(context.device());
    core::log::info("teacher: {} of {} parameters on {} samples", model.network.architecture,
                    model.parameters.count(), data->size());

    const RealBatches real(data, {.batch = context.config().teacher.training.batch,
                                  .horizontal_flips = context.config().flips,
                                  .seed = context.seed(),
                                  .stream = "teacher/data",
                                  .indices = {},
                                  .threads = loader_threads(context.config(), context.device())});
    const auto conditions =
        data->captions().empty() ? context.conditions() : caption_ids(*data, stage.path());
    distillation::ScoreMatchingSettings settings = context.config().teacher.training;
    settings.sampler_steps = context.config().evaluation.steps;
    if (const nlohmann::json from = stage.note(continued); from.is_number_integer())
        settings.optimization.warm_from = from.get<std::int64_t>();
    distillation::ScoreMatching matching(
        {model.network, model.parameters, nullptr, real.source(), conditions}, settings,
        context.stage_context(model, name_of(StageKind::teacher)));
    training::LoopSettings loop =
        context.loop_settings("teacher", stage.path() / "training", {}, conditions);
    loop.stage = name_of(StageKind::teacher);
    loop.probe_every = context.config().probe.sampler_every;
    if (settings.optimization.warm_from > 0)
        continue_from_weights(stage, matching, loop, model, settings.optimization.warm_from);
    auto result = training::run_stage(matching, loop);
    real.log_throughput(loop.label);
    if (!ranks.leads()) return;

    model.provenance = {.made_by = "teacher training",
                        .seed = context.config().seed,
                        .data = data->hash(),
                        .prior = data::prior_of(*data).weights};
    if (!data->captions().empty()) split_off_text_tower(stage.path(), model, result);
    if (const auto guidance = guidance_of(context.config())) model.guidance = guidance;
    write_result(stage.path(), model, result, context.config().teacher.training.optimization);
    stage.finish({{"seconds", result.seconds}, {"probe_distance", result.best_distance}});
    core::log::info("teacher: done in {}", core::format_duration(result.seconds));
}

void adopt(RunContext& context, const training::StageFolder& stage, const nlohmann::json& notes) {
    const std::filesystem::path from = context.config().teacher.path;
    context.raw_data();  // errors in the data are reported before anything is written
    const std::optional<double> guidance = guidance_of(context.config());
    stage.begin(notes);
    if (models::is_diffusers_directory(from)) {
        models::write_latent_model(models::DiffusersDirectory(from), stage.path(), guidance);
    } else {
        models::Model model = models::read_model(from);
        if (guidance) model.guidance = guidance;
        models::copy_parts(from, stage.path());
        models::write_model(stage.path(), model);
    }
    stage.finish({{"adopted", context.config().teacher.path}});
}

}  // namespace

void write_result(const std::filesystem::path& folder, models::Model& model,
                  const training::LoopResult& result,
                  const distillation::Optimization& optimization) {
    const bool averaged = optimization.ema_decay > 0;
    const bool best = result.used_best;
    std::string what = averaged ? fmt::format("average with decay {}", optimization.ema_decay)
                                : "weights without an average";
    what += best
                ? fmt::format(", of step {}, whose probe was nearest to the data", result.best_step)
                : ", of the last step";
    model.weights = {{"model.safetensors", what},
                     {"model-raw.safetensors", "weights without an average, of the last step"}};
    models::MoreWeights more{{"raw", result.raw_weights}};
    for (const auto& [decay, average] : result.more_averages) {
        more["ema-" + decay] = average;
        model.weights["model-ema-" + decay + ".safetensors"] =
            fmt::format("average with decay {}, of the last step", decay);
    }
    model.parameters = result.weights;
    models::write_model(folder, model, more);
}

void make_teacher(RunContext& context) {
    const auto stage = context.stage(StageKind::teacher);
    if (!context.config().teacher.path.empty()) {
        const nlohmann::json notes{{"probe.classifier", context.probe_classifier()}};
        if (!stage.finished()) adopt(context, stage, notes);
        return;
    }
    if (context.is_finished(stage)) return;
    context.data();  // errors in the data are reported before anything is written
    context.ranks().leader_first("teacher", [&] {
        if (!context.ranks().leads()) return true;
        nlohmann::json notes{{"probe.classifier", context.probe_classifier()}};
        if (const auto from = stage.extended_from()) {
            notes[continued] = *from;
            core::log::info("teacher: goes on from step {} to {}", *from,
                            context.config().teacher.training.steps);
        }
        stage.begin(notes);
        return true;
    });
    train(context, stage);
}

}  // namespace atelier::pipeline
