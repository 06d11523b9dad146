#include <CLI/CLI.hpp>
#include <iostream>
#include <limits>

#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/preflight.h"
#include "atelier/cli/prompt_pictures.h"
#include "atelier/cli/stages.h"
#include "atelier/cli/usage.h"
#include "atelier/cli/yardstick.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/data/prompt_file.h"
#include "atelier/data/sampling.h"
#include "atelier/evaluation/caption_measuring.h"
#include "atelier/models/what_is.h"

namespace atelier::cli {

namespace {

struct EvaluateArguments {
    std::string subject, out, sampler, protocol = "atelier", classes;
    std::vector<std::string> overrides;
    evaluation::Measuring measuring;
    EngineOptions engine;
    std::int64_t seed = 0, seeds = 1;
    std::optional<std::int64_t> count, steps;
    std::optional<double> guidance;
    std::string captions;
    std::optional<int> side;
    bool json = false;
};

void evaluate_config(const EvaluateArguments& arguments) {
    Workshop workshop(load_config(arguments.subject, arguments.overrides));
    check_plan(workshop);
    for (const std::string& remark : check_before_training(workshop.loaded(), workshop.raw_data().get())) core::log::warning("{}", remark);
    make_evaluation(workshop);
}

std::filesystem::path result_file(const EvaluateArguments& arguments) {
    return std::filesystem::path(arguments.out) / "evaluation.json";
}

/// Before anything is measured: a folder that cannot be written would lose all of it.
void check_out(const EvaluateArguments& arguments) { core::check_output_file(result_file(arguments)); }

void write(const EvaluateArguments& arguments, const nlohmann::json& results,
           const std::string& beside = {}) {
    core::write_json(result_file(arguments), results);
    if (arguments.json) std::cout << results.dump() << std::endl;
    else std::cout << text_of(evaluation::comparison_table(results));
    core::log::info(
        "written: {}{}", result_file(arguments).string(),
        beside.empty() ? "" : " and " + (std::filesystem::path(arguments.out) / beside).string());
}

/// Other seeds draw other samples: figures of different seeds differ by chance.
void say_seeds(const EvaluateArguments& arguments) {
    const auto& seeds = arguments.measuring.seeds;
    core::log::info("evaluation: {} samples of {}", arguments.measuring.count, seeds.size() == 1 ? fmt::format("seed {}", seeds.front()) : fmt::format("each of the seeds {} to {}", seeds.front(), seeds.back()));
}

std::vector<std::uint64_t> chosen_seeds(const EvaluateArguments& arguments) {
    constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max();
    if (arguments.seed > last - (arguments.seeds - 1)) throw core::UsageError(fmt::format("--seed: {} seeds from {} on go beyond {}", arguments.seeds, arguments.seed, last));
    std::vector<std::uint64_t> seeds;
    for (std::int64_t i = 0; i < arguments.seeds; ++i) seeds.push_back(static_cast<std::uint64_t>(arguments.seed + i));
    return seeds;
}

void evaluate_samples_of_model(EvaluateArguments& arguments) {
    const auto generator = inference::open_generator(arguments.subject, inference::sampling_of(arguments.sampler, arguments.steps), arguments.engine.chosen());
    evaluation::drawn_classes(arguments.measuring.protocol.classes, arguments.measuring.count, 0, generator->prior());  // refused before anything is measured
    say_seeds(arguments);
    const nlohmann::json results = measure(arguments.measuring, {{arguments.subject, generator.get()}});
    const std::filesystem::path out(arguments.out);
    const auto wanted = inference::plan(100, static_cast<std::uint64_t>(arguments.seed), {}, generator->prior());
    draw_samples(out / "samples", generator->form(), generator->draw(wanted), wanted.classes);
    write(arguments, results, "samples.png");
}

void evaluate_prompted(EvaluateArguments& arguments) {
    evaluation::Measuring& measuring = arguments.measuring;
    if (!measuring.reference.empty())
        throw core::UsageError(
            "--reference is not for models of captions, whose captions come from the data; give "
            "--data captions:FOLDER or captioned images");
    inference::PromptedGenerator generator(arguments.subject, inference::sampling_of(arguments.sampler, arguments.steps), std::nullopt, arguments.engine.chosen());
    say_seeds(arguments);
    write(arguments, evaluation::measure_captions(measuring, {{arguments.subject, &generator}}));
}

/// Whether images lie there, not a model that draws them.
bool is_data(const std::filesystem::path& path) {
    return std::filesystem::exists(path) && !models::is_ensemble_directory(path) && !std::filesystem::exists(path / "config.json");
}

/// The captions of a file, a line each.
std::vector<std::string> captions_of(const std::string& path) {
    std::vector<std::string> captions;
    data::PromptFile file(path);
    for (std::string caption; file.next(caption);) captions.push_back(caption);
    constexpr std::size_t fewest = 4;  // of precision and recall, which look at 3 neighbours
    if (captions.size() < fewest)
        core::fail("{}: {} captions are too few; at least {} are needed", path, captions.size(),
                   fewest);
    return captions;
}

/// `count` of the captions, in their order: a seeded sample where there are more, which is said.
std::vector<std::string> sampled(const std::vector<std::string>& captions, std::int64_t count,
                                 const std::string& path) {
    const auto total = static_cast<std::int64_t>(captions.size());
    if (count >= total) return captions;
    core::log::warning(
        "{}: a seeded sample of {} of its {} captions is drawn; --count {} draws all", path, count,
        total, total);
    std::vector<std::string> some;
    for (const std::int64_t i : data::spread_sample({}, total, count, 0, "captions of a file"))
        some.push_back(captions[static_cast<std::size_t>(i)]);
    return some;
}

/// A picture for every caption, drawn into OUT/pictures where the subject is a model, and all of them measured (the protocol of COCO-30k).
void evaluate_on_captions(EvaluateArguments& arguments) {
    evaluation::Measuring& measuring = arguments.measuring;
    if (arguments.seeds != 1) throw core::UsageError("--seeds: with --captions one seed is measured; run others with --seed and another --out");
    std::vector<std::string> captions = captions_of(arguments.captions);
    const auto with_clip = [&] {
        return measuring.clip.empty() ? std::span<const std::string>{}
                                      : std::span<const std::string>(captions);
    };
    if (draws_prompts(arguments.subject)) {
        captions = sampled(captions, measuring.count, arguments.captions);
        measuring.count = static_cast<std::int64_t>(captions.size());
        const std::string pictures = (std::filesystem::path(arguments.out) / "pictures").string();
        const int side = arguments.side.value_or(static_cast<int>(measuring.protocol.side));
        const PictureFacts facts =
            draw_prompts({arguments.subject, arguments.sampler, arguments.steps, arguments.guidance,
                          arguments.seed, side},
                         captions, pictures, arguments.engine.chosen());
        nlohmann::json results =
            measure_images(measuring, pictures, with_clip(), arguments.subject);
        results["models"][arguments.subject].update(
            {{"parameters", facts.parameters}, {"evaluations", facts.evaluations}});
        return write(arguments, results, "pictures");
    }
    if (!is_data(arguments.subject)) {
        if (!std::filesystem::exists(arguments.subject))
            core::fail(
                "{}: there is no such model, and no images; name a model or ensemble directory, a "
                "diffusers directory, or images",
                arguments.subject);
        throw core::UsageError("--captions: " + arguments.subject + " reads no prompts; name a model that does, a diffusers directory, or images that were made of the captions");
    }
    write(arguments, measure_images(measuring, arguments.subject, with_clip()));
}

void evaluate_images(const EvaluateArguments& arguments) { write(arguments, measure_images(arguments.measuring, arguments.subject)); }

/// A run stands for its ensemble; what is neither a model nor data is said to be what it is.
void find_subject(EvaluateArguments& arguments) {
    using Kind = models::Finding::Kind;
    const Kind kind = models::what_is(arguments.subject).kind;
    const bool data = kind == Kind::data_set || kind == Kind::arrays || kind == Kind::safetensors || kind == Kind::other;
    if (!data) arguments.subject = models::model_at(arguments.subject).string();
    if (kind == Kind::diffusers && arguments.captions.empty()) throw core::UsageError(arguments.subject + ": is a diffusers directory, which draws prompts; give them with --captions FILE");
}

/// Fills in what the protocol says and nothing else does.
void settle_protocol(EvaluateArguments& arguments) {
    evaluation::Measuring& measuring = arguments.measuring;
    // Images that somebody brought: nobody draws classes, so what is left of DMD2's ways is the one
    // for pictures of captions.
    measuring.protocol = evaluation::named_protocol(
        arguments.protocol, !arguments.captions.empty() || is_data(arguments.subject));
    const std::int64_t usual = measuring.protocol.count;
    measuring.count = arguments.count.value_or(usual);
    if (measuring.count != usual && arguments.protocol != "atelier") {
        core::log::warning(
            "the protocol {} measures {} samples, and --count asks for {}: its figures are not to "
            "be set beside those of {}",
            arguments.protocol, usual, measuring.count, usual);
    }
    if (!arguments.classes.empty())
        measuring.protocol.classes = evaluation::class_draws(arguments.classes);
    measuring.seeds = chosen_seeds(arguments);
    measuring.device = inference::device_of(arguments.engine.device);
}

void check_measuring(const EvaluateArguments& arguments) {
    const evaluation::Measuring& measuring = arguments.measuring;
    const bool by_clip_alone = !measuring.clip.empty() && !arguments.captions.empty();
    if (!measuring.data.empty() && !measuring.reference.empty())
        throw core::UsageError(
            "--data and --reference: give one of the two, data to measure against or statistics of "
            "it");
    if (measuring.data.empty() && measuring.reference.empty() && !by_clip_alone) {
        throw core::UsageError("--data is needed: held-out data to measure against; or --reference: statistics of it (.npz)");
    }
    if (measuring.data.empty() && !measuring.save_reference.empty())
        throw core::UsageError("--save-reference takes statistics of --data");
    if (arguments.out.empty()) throw core::UsageError("--out is needed: the folder that gets evaluation.json and samples.png");
    if (!measuring.clip.empty() && arguments.captions.empty())
        throw core::UsageError(
            "--clip needs --captions FILE, a caption a line: what the pictures should show");
    if (!arguments.classes.empty() && (!arguments.captions.empty() || is_data(arguments.subject) ||
                                       inference::reads_prompts(arguments.subject))) {
        throw core::UsageError("--classes is for models of classes, which draw them");
    }
    if (arguments.protocol != "atelier" && arguments.captions.empty() &&
        inference::reads_prompts(arguments.subject)) {
        throw core::UsageError(
            "--protocol " + arguments.protocol +
            ": a model of captions is measured so with --captions FILE, a caption a line; without, "
            "its captions come from the data and the protocol is atelier's");
    }
    if (arguments.captions.empty() && (arguments.side || arguments.guidance))
        throw core::UsageError("--size and --guidance go with --captions");
}

void evaluate_model(EvaluateArguments& arguments) {
    find_subject(arguments);
    if (!arguments.overrides.empty()) throw core::UsageError("key=value pairs go with a config; \"" + arguments.overrides.front() + "\" follows a model");
    check_measuring(arguments);
    settle_protocol(arguments);
    check_out(arguments);
    if (!arguments.captions.empty()) evaluate_on_captions(arguments);
    else if (is_data(arguments.subject)) evaluate_images(arguments);
    else if (inference::reads_prompts(arguments.subject)) evaluate_prompted(arguments);
    else evaluate_samples_of_model(arguments);
}

}  // namespace

void add_evaluate_command(CLI::App& app) {
    auto arguments = std::make_shared<EvaluateArguments>();
    CLI::App* command = app.add_subcommand("evaluate", "Measure a model against held-out data, or a run's teacher and students");
    command->add_option("SUBJECT", arguments->subject, "a model or ensemble directory; images in a folder, .zip, .tar or .npz; or a run's config (*.toml)")->required();
    command->add_option("overrides", arguments->overrides, "key=value pairs, with a config");
    command->add_option("--data", arguments->measuring.data, "held-out data; its test split is used where it has one");
    command->add_option("--split", arguments->measuring.split, "train or test")->check(CLI::IsMember({"train", "test"}));
    command
        ->add_option("--classifier", arguments->measuring.classifier,
                     "classifier whose features measure images; \"\": pixels are compared")
        ->capture_default_str();
    command->add_option("--inception", arguments->measuring.inception, "weights of Inception-v3 (pt_inception-2015-12-05-*.pth, or safetensors): FID, KID, Inception Score");
    command
        ->add_option("--protocol", arguments->protocol,
                     "whose way of measuring: resizing, class draws, count and caption prefix")
        ->check(CLI::IsMember({"atelier", "edm", "dmd2"}))
        ->capture_default_str();
    command
        ->add_option("--classes", arguments->classes,
                     "how classes are drawn, instead of the protocol's way: by the training prior, "
                     "uniformly, independently, or the same count of each")
        ->check(CLI::IsMember({"prior", "uniform", "iid", "equal"}));
    command->add_option("--captions", arguments->captions,
                        "a caption a line: a picture is drawn for each of a seeded sample of "
                        "--count, or image i of SUBJECT is of caption i");
    command->add_option("--clip", arguments->measuring.clip, "directory of a CLIPModel (transformers'), with --captions: CLIP score");
    command
        ->add_option("--size", arguments->side,
                     "with --captions: pictures are scaled to squares of so many pixels; 0: as "
                     "drawn (256 with --protocol dmd2)")
        ->check(CLI::Range(0, 4096));
    command->add_option("--guidance", arguments->guidance, "with --captions, of diffusers directories and teachers")->check(CLI::Range(0.0, 100.0));
    command->add_option("--reference", arguments->measuring.reference, "statistics (.npz with mu and sigma) instead of --data");
    command->add_option("--save-reference", arguments->measuring.save_reference, "write the statistics of --data to this .npz");
    command->add_option("--count", arguments->count, "samples per seed; without: 10000, or what the protocol measures (50000, of captions 30000)")->check(CLI::Range(std::int64_t{2}, std::int64_t{10'000'000}));
    command->add_option("--seed", arguments->seed, "first seed; a run's own evaluation begins with 1000")->check(seed_range())->capture_default_str();
    command->add_option("--seeds", arguments->seeds, "how many seeds, for mean and spread")->capture_default_str()->check(CLI::Range(1, 1000));
    command->add_option("--sampler", arguments->sampler, "without: one step for students, 18 Heun steps for teachers, 25 of dpm++ for diffusers directories; "
                        "EDM's stochastic sampler takes settings, e.g. stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003")
        ->type_name("{one-step,heun,ddim,stochastic,dpm++}");
    command->add_option("--steps", arguments->steps, "steps of heun, ddim and stochastic, with --sampler")->check(CLI::Range(1, 10000));
    arguments->engine.add_to(*command);
    command->add_option("--out", arguments->out, "folder for evaluation.json and samples.png");
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
        if (arguments->subject.ends_with(".toml")) evaluate_config(*arguments);
        else evaluate_model(*arguments);
    });
}

}  // namespace atelier::cli
