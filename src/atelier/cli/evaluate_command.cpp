#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <limits>

#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/prompt_images.h"
#include "atelier/cli/usage.h"
#include "atelier/cli/with_ranks.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/core/shard.h"
#include "atelier/data/prompt_file.h"
#include "atelier/data/sampling.h"
#include "atelier/metrics/measuring.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/pipeline/probe_distance.h"
#include "atelier/pipeline/stages.h"
#include "atelier/report/comparison.h"

namespace atelier::cli {

namespace {

struct EvaluateArguments {
    std::string subject, out, sampler, protocol = "atelier", classes, shard;
    std::vector<std::string> overrides;
    metrics::EvaluationConfig config;
    EngineOptions engine;
    std::int64_t seed = 0, seeds = 1;
    std::optional<std::int64_t> count, steps;
    std::optional<double> guidance;
    std::string captions;
    std::optional<int> side;
    bool json = false;
};

void evaluate_config(const EvaluateArguments& arguments) {
    pipeline::RunContext context(pipeline::load_config(arguments.subject, arguments.overrides));
    if (!arguments.shard.empty()) context.set_shard(core::shard_of(arguments.shard));
    pipeline::check_run(context);
    for (const std::string& warning :
         pipeline::check_before_training(context.loaded(), context.raw_data().get()))
        core::log::warning("{}", warning);
    pipeline::run_stages_of(context, pipeline::StageKind::evaluation);
}

std::filesystem::path result_file(const EvaluateArguments& arguments) {
    return std::filesystem::path(arguments.out) / "evaluation.json";
}

/// Checked before the evaluation, whose result would be lost if it could not be written.
void check_output(const EvaluateArguments& arguments) {
    core::check_output_file(result_file(arguments));
}

void write(const EvaluateArguments& arguments, const nlohmann::json& results,
           const std::string& extra_output = {}) {
    core::write_json(result_file(arguments), results);
    if (arguments.json) std::cout << core::json_text(results) << std::endl;
    else std::cout << text_of(report::comparison_table(results));
    core::log::info("written: {}{}", result_file(arguments).string(),
                    extra_output.empty()
                        ? ""
                        : " and " + (std::filesystem::path(arguments.out) / extra_output).string());
}

/// Says how far a shared evaluation is whose parts are not all there yet.
void report_parts(const EvaluateArguments& arguments) {
    const metrics::EvaluationParts& parts = *arguments.config.parts;
    core::log::info("{}", parts.standing());
    if (arguments.json)
        std::cout << core::json_text({{"shard", parts.shard().name()},
                                      {"parts", parts.batches()},
                                      {"missing", parts.missing()}})
                  << std::endl;
}

/// Calls `measure`, and `write` with its result; of several shards only one that finds all parts
/// there writes.
void measure_and_write(const EvaluateArguments& arguments,
                       const std::function<nlohmann::json()>& measure,
                       const std::function<void(const nlohmann::json&)>& write) {
    const nlohmann::json results = metrics::with_parts(arguments.config, measure);
    if (results.is_null()) return report_parts(arguments);
    write(results);
    if (arguments.config.parts) arguments.config.parts->remove();
}

/// Logs the seeds, since metrics of different seeds differ by chance.
void log_seeds(const EvaluateArguments& arguments) {
    const auto& seeds = arguments.config.seeds;
    core::log::info("evaluation: {} samples of {}", arguments.config.count,
                    seeds.size() == 1
                        ? fmt::format("seed {}", seeds.front())
                        : fmt::format("each of the seeds {} to {}", seeds.front(), seeds.back()));
}

std::vector<std::uint64_t> chosen_seeds(const EvaluateArguments& arguments) {
    constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max();
    if (arguments.seed > last - (arguments.seeds - 1))
        throw core::UsageError(fmt::format("--seed: {} seeds from {} on go beyond {}",
                                           arguments.seeds, arguments.seed, last));
    std::vector<std::uint64_t> seeds;
    for (std::int64_t i = 0; i < arguments.seeds; ++i)
        seeds.push_back(static_cast<std::uint64_t>(arguments.seed + i));
    return seeds;
}

/// Attributes are what captions mention; nothing else has any.
void reject_attributes(const EvaluateArguments& arguments) {
    if (!arguments.config.attributes.empty())
        throw core::UsageError("--attributes is for models of captions; " + arguments.subject +
                               " is none");
}

void evaluate_samples_of_model(EvaluateArguments& arguments) {
    reject_attributes(arguments);
    const auto generator =
        inference::Pipeline::load(arguments.subject, {.engine = arguments.engine.chosen(),
                                                      .sampler = arguments.sampler,
                                                      .steps = arguments.steps});
    metrics::drawn_classes(arguments.config.protocol.classes, arguments.config.count, 0,
                           generator->prior());  // throws before anything is evaluated
    log_seeds(arguments);
    measure_and_write(
        arguments,
        [&] { return measure(arguments.config, {{arguments.subject, generator.get()}}); },
        [&](const nlohmann::json& results) {
            const auto requests = inference::class_requests(
                100, static_cast<std::uint64_t>(arguments.seed), {}, generator->prior());
            pipeline::draw_samples(std::filesystem::path(arguments.out) / "samples",
                                   generator->decoded_spec(), generator->draw_decoded(requests),
                                   inference::classes_of(requests));
            write(arguments, results, "samples.png");
        });
}

void evaluate_prompted(EvaluateArguments& arguments) {
    metrics::EvaluationConfig& config = arguments.config;
    if (!config.reference.empty())
        throw core::UsageError(
            "--reference is not for models of captions, whose captions come from the data; give "
            "--data captions:FOLDER or captioned images");
    const auto pipeline =
        inference::Pipeline::load(arguments.subject, {.engine = arguments.engine.chosen(),
                                                      .sampler = arguments.sampler,
                                                      .steps = arguments.steps,
                                                      .guidance = arguments.guidance});
    log_seeds(arguments);
    measure_and_write(
        arguments, [&] { return metrics::measure(config, {{arguments.subject, pipeline.get()}}); },
        [&](const nlohmann::json& results) { write(arguments, results); });
}

/// All of the work, where it is not divided.
core::Shard shard_of(const EvaluateArguments& arguments) {
    return arguments.shard.empty() ? core::Shard{} : core::shard_of(arguments.shard);
}

/// Whether `path` holds data rather than a model.
bool is_data(const std::filesystem::path& path) {
    return std::filesystem::exists(path) && !models::is_ensemble_directory(path) &&
           !models::is_diffusers_directory(path) && !std::filesystem::exists(path / "config.json");
}

/// The captions of a file, one per line.
std::vector<std::string> captions_of(const std::string& path) {
    std::vector<std::string> captions;
    data::PromptFile file(path);
    for (std::string caption; file.next(caption);) captions.push_back(caption);
    constexpr std::size_t fewest = 4;  // precision and recall use 3 neighbours
    if (captions.size() < fewest)
        core::fail("{}: {} captions are too few; at least {} are needed", path, captions.size(),
                   fewest);
    return captions;
}

/// A seeded sample of `count` captions in file order, or all if there are no more; warns when
/// sampling.
std::vector<std::string> sample_captions(const std::vector<std::string>& captions,
                                         std::int64_t count, const std::string& path) {
    const auto total = static_cast<std::int64_t>(captions.size());
    if (count >= total) return captions;
    core::log::warning(
        "{}: a seeded sample of {} of its {} captions is drawn; --count {} draws all", path, count,
        total, total);
    std::vector<std::string> some;
    for (const std::int64_t i : data::stratified_sample({}, total, count, 0, "captions of a file"))
        some.push_back(captions[static_cast<std::size_t>(i)]);
    return some;
}

/// Evaluates one image per caption (the protocol of COCO-30k); if the subject is a model, the
/// images are generated into OUT/pictures first.
void evaluate_on_captions(EvaluateArguments& arguments) {
    reject_attributes(arguments);
    metrics::EvaluationConfig& config = arguments.config;
    if (arguments.seeds != 1)
        throw core::UsageError(
            "--seeds: with --captions one seed is evaluated; run others with --seed and another "
            "--out");
    std::vector<std::string> captions = captions_of(arguments.captions);
    const auto clip_captions = [&] {
        return config.clip.empty() ? std::span<const std::string>{}
                                   : std::span<const std::string>(captions);
    };
    if (inference::reads_prompts(arguments.subject)) {
        captions = sample_captions(captions, config.count, arguments.captions);
        config.count = static_cast<std::int64_t>(captions.size());
        const std::string images_path =
            (std::filesystem::path(arguments.out) / "pictures").string();
        const int side = arguments.side.value_or(static_cast<int>(config.protocol.side));
        const GenerationCost cost =
            draw_prompts({arguments.subject, arguments.sampler, arguments.steps, arguments.guidance,
                          arguments.seed, side},
                         captions, images_path, arguments.engine.chosen(), shard_of(arguments));
        if (cost.missing > 0) {
            core::log::info(
                "shard {} is done; {} of {} images are not there yet, and the shard that finds "
                "them "
                "all measures them",
                shard_of(arguments).name(), cost.missing, captions.size());
            return;
        }
        nlohmann::json results =
            measure_images(config, images_path, clip_captions(), arguments.subject);
        results["models"][arguments.subject].update(
            {{"parameters", cost.parameters}, {"evaluations", cost.evaluations}});
        return write(arguments, results, "pictures");
    }
    if (!is_data(arguments.subject)) {
        if (!std::filesystem::exists(arguments.subject))
            core::fail(
                "{}: there is no such model, and no images; name a model or ensemble directory, a "
                "diffusers directory, or images",
                arguments.subject);
        throw core::UsageError("--captions: " + arguments.subject +
                               " reads no prompts; name a model that does, a diffusers directory, "
                               "or images that were made of the captions");
    }
    if (!arguments.shard.empty())
        throw core::UsageError(
            "--shard: images that exist are measured with their captions by one process; leave "
            "--captions and --clip out, or --shard");
    write(arguments, measure_images(config, arguments.subject, clip_captions()));
}

void evaluate_images(const EvaluateArguments& arguments) {
    reject_attributes(arguments);
    measure_and_write(
        arguments, [&] { return measure_images(arguments.config, arguments.subject); },
        [&](const nlohmann::json& results) { write(arguments, results); });
}

/// Replaces a run by its ensemble; throws on what is neither a model nor data.
void resolve_subject(EvaluateArguments& arguments) {
    using Kind = models::PathInfo::Kind;
    const Kind kind = models::identify_path(arguments.subject).kind;
    const bool data = kind == Kind::data_set || kind == Kind::arrays || kind == Kind::safetensors ||
                      kind == Kind::other || kind == Kind::unknown_folder;
    if (!data) arguments.subject = models::model_at(arguments.subject).string();
}

/// Applies the protocol's settings where options do not override them.
void apply_protocol(EvaluateArguments& arguments) {
    metrics::EvaluationConfig& config = arguments.config;
    // For existing images no classes are drawn, so DMD2's caption protocol applies.
    config.protocol = metrics::named_protocol(
        arguments.protocol, !arguments.captions.empty() || is_data(arguments.subject));
    const std::int64_t default_count = config.protocol.count;
    config.count = arguments.count.value_or(default_count);
    if (config.count != default_count && arguments.protocol != "atelier") {
        core::log::warning(
            "protocol {} uses {} samples, and --count requests {}: its metrics are not "
            "comparable with those of {}",
            arguments.protocol, default_count, config.count, default_count);
    }
    if (!arguments.classes.empty())
        config.protocol.classes = metrics::class_draws(arguments.classes);
    config.seeds = chosen_seeds(arguments);
    config.device = inference::device_of(arguments.engine.device);
}

void check_arguments(const EvaluateArguments& arguments) {
    const metrics::EvaluationConfig& config = arguments.config;
    const bool clip_only = !config.clip.empty() && !arguments.captions.empty();
    if (!config.data.empty() && !config.reference.empty())
        throw core::UsageError(
            "--data and --reference: give one of the two, data to measure against or statistics of "
            "it");
    if (config.data.empty() && config.reference.empty() && !clip_only) {
        throw core::UsageError(
            "--data is needed: held-out data to measure against; or --reference: statistics of it "
            "(.npz)");
    }
    if (!config.real.empty() && config.data.empty() && config.reference.empty())
        throw core::UsageError(
            "--real goes with --data or --reference, to which real images are compared");
    if (config.data.empty() && !config.save_reference.empty())
        throw core::UsageError("--save-reference takes statistics of --data");
    if (arguments.out.empty())
        throw core::UsageError(
            "--out is needed: the folder that gets evaluation.json and samples.png");
    if (!config.clip.empty() && arguments.captions.empty())
        throw core::UsageError(
            "--clip needs --captions FILE, one caption per line: what the images should show");
    if (!arguments.classes.empty() && (!arguments.captions.empty() || is_data(arguments.subject) ||
                                       inference::reads_prompts(arguments.subject))) {
        throw core::UsageError("--classes is for models of classes, which draw them");
    }
    if (arguments.protocol != "atelier" && arguments.captions.empty() &&
        inference::reads_prompts(arguments.subject)) {
        throw core::UsageError(
            "--protocol " + arguments.protocol +
            ": a text-conditional model needs --captions FILE, one caption per line; without, "
            "its captions come from the data and the protocol is atelier's");
    }
    if (arguments.captions.empty() && arguments.side)
        throw core::UsageError("--size goes with --captions");
    if (arguments.guidance && arguments.captions.empty() &&
        !inference::reads_prompts(arguments.subject))
        throw core::UsageError("--guidance is for models that read prompts");
}

void evaluate_model(EvaluateArguments& arguments) {
    resolve_subject(arguments);
    if (!arguments.overrides.empty())
        throw core::UsageError("key=value pairs go with a config; \"" +
                               arguments.overrides.front() + "\" follows a model");
    check_arguments(arguments);
    apply_protocol(arguments);
    check_output(arguments);
    if (!arguments.shard.empty() && arguments.captions.empty())
        arguments.config.parts = std::make_shared<metrics::EvaluationParts>(
            std::filesystem::path(arguments.out) / "parts", result_file(arguments),
            shard_of(arguments));
    if (!arguments.captions.empty()) evaluate_on_captions(arguments);
    else if (is_data(arguments.subject)) evaluate_images(arguments);
    else if (inference::reads_prompts(arguments.subject)) evaluate_prompted(arguments);
    else evaluate_samples_of_model(arguments);
}

}  // namespace

void add_evaluate_command(CLI::App& app) {
    auto arguments = std::make_shared<EvaluateArguments>();
    CLI::App* command = app.add_subcommand(
        "evaluate", "Measure a model against held-out data, or a run's teacher and students");
    command
        ->add_option("SUBJECT", arguments->subject,
                     "a model or ensemble directory; images in a folder, .zip, .tar or .npz; or a "
                     "run's config (*.toml)")
        ->required();
    command->add_option("overrides", arguments->overrides, "key=value pairs, with a config");
    command->add_option("--data", arguments->config.data,
                        "held-out data; its test split is used where it has one");
    command->add_option("--split", arguments->config.split, "train or test")
        ->check(CLI::IsMember({"train", "test"}));
    command
        ->add_option("--classifier", arguments->config.classifier,
                     "classifier whose features measure images; \"\": pixels are compared")
        ->capture_default_str();
    command->add_option("--attributes", arguments->config.attributes,
                        "of captioned data: JSON file that names attributes, the phrases by which "
                        "captions mention them, and a classifier for each (docs/captions.md)");
    command->add_option("--inception", arguments->config.inception,
                        "weights of Inception-v3 (pt_inception-2015-12-05-*.pth, or safetensors): "
                        "FID, KID, Inception Score");
    command->add_option("--dinov2", arguments->config.dinov2,
                        "weights of DINOv2 (transformers' model.safetensors, or the "
                        "authors' .pth), too: distances on its features");
    command->add_option("--clip-features", arguments->config.clip_features,
                        "directory of a CLIPModel (transformers'), too: distances on its image "
                        "features");
    command->add_option("--real", arguments->config.real,
                        "real images apart from --data: FDr^k, the mean over the networks of a "
                        "Frechet distance divided by that of these images");
    command
        ->add_option("--protocol", arguments->protocol,
                     "whose way of measuring: resizing, class draws, count and caption prefix")
        ->check(CLI::IsMember({"atelier", "edm", "dmd2", "clean-fid"}))
        ->capture_default_str();
    command
        ->add_option("--classes", arguments->classes,
                     "how classes are drawn, instead of the protocol's way: by the training prior, "
                     "uniformly, independently, or the same count of each")
        ->check(CLI::IsMember({"prior", "uniform", "iid", "equal"}));
    command->add_option(
        "--captions", arguments->captions,
        "one caption per line: an image is generated for each of a seeded sample of "
        "--count, or image i of SUBJECT is of caption i");
    command->add_option("--clip", arguments->config.clip,
                        "directory of a CLIPModel (transformers'), with --captions: CLIP score");
    command
        ->add_option("--size", arguments->side,
                     "with --captions: images are resized to squares of this many pixels; 0: as "
                     "drawn (256 with --protocol dmd2)")
        ->check(CLI::Range(0, 4096));
    command
        ->add_option("--guidance", arguments->guidance,
                     "of diffusers directories and teachers that read prompts")
        ->check(CLI::Range(0.0, 100.0));
    command->add_option("--reference", arguments->config.reference,
                        "statistics (.npz with mu and sigma) instead of --data");
    command->add_option("--save-reference", arguments->config.save_reference,
                        "write the statistics of --data to this .npz");
    command
        ->add_option("--count", arguments->count,
                     "samples per seed; without: 10000, or what the protocol measures (50000, of "
                     "captions 30000)")
        ->check(CLI::Range(std::int64_t{2}, std::int64_t{10'000'000}));
    command
        ->add_option("--seed", arguments->seed,
                     "first seed; a run's own evaluation begins with 1000")
        ->check(seed_range())
        ->capture_default_str();
    command->add_option("--seeds", arguments->seeds, "how many seeds, for mean and spread")
        ->capture_default_str()
        ->check(CLI::Range(1, 1000));
    command
        ->add_option("--sampler", arguments->sampler,
                     "without: one step for students, 18 Heun steps for teachers, 25 of dpm++ for "
                     "diffusers directories; "
                     "EDM's stochastic sampler takes settings, e.g. "
                     "stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003")
        ->type_name("{one-step,heun,ddim,stochastic,dpm++}");
    command
        ->add_option("--steps", arguments->steps,
                     "steps of heun, ddim and stochastic, with --sampler")
        ->check(CLI::Range(1, 10000));
    arguments->engine.add_to(*command);
    command->add_option("--out", arguments->out, "folder for evaluation.json and samples.png");
    add_shard_option(*command, arguments->shard,
                     "samples and of their features; the shard that finds all parts there writes "
                     "the result");
    command->add_flag("--json", arguments->json, "print the result as JSON");
    command->footer(
        "Examples:\n  atelier evaluate models/fashion-mnist/k4 --data "
        "/usr/share/datasets/fashion-mnist --count 10000 --seed 0 --out eval\n"
        "  atelier evaluate imagenet64-msd4 --protocol edm --inception "
        "pt_inception-2015-12-05-6726825d.pth --reference imagenet-64x64.npz --out fid\n"
        "  atelier evaluate pictures.npz --inception pt_inception-2015-12-05-6726825d.pth --data "
        "imagenet-64x64.zip --out fid\n"
        "  atelier evaluate sd15-msd4 --protocol dmd2 --captions coco-30k.txt --inception "
        "pt_inception-2015-12-05-6726825d.pth --clip clip-vit-base-patch32 "
        "--data coco-val-256.zip --out coco\n"
        "  atelier evaluate configs/toy2d.toml output=runs/toy2d");
    command->callback([arguments] {
        if (arguments->subject.ends_with(".toml"))
            by_first_rank([&] { evaluate_config(*arguments); });
        else evaluate_model(*arguments);
    });
}

}  // namespace atelier::cli
