#include <CLI/CLI.hpp>
#include <iostream>

#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/prompt_pictures.h"
#include "atelier/cli/stages.h"
#include "atelier/cli/yardstick.h"
#include "atelier/core/error.h"
#include "atelier/data/prompt_file.h"
#include "atelier/evaluation/caption_measuring.h"

namespace atelier::cli {

namespace {

struct EvaluateArguments {
    std::string subject, out, sampler;
    std::vector<std::string> overrides;
    evaluation::Measuring measuring;
    EngineOptions engine;
    std::int64_t seed = 0, seeds = 1;
    std::optional<std::int64_t> steps;
    std::optional<double> guidance;
    std::string captions;
    int side = 0;
    bool json = false;
};

void evaluate_config(const EvaluateArguments& arguments) {
    Workshop workshop(load_config(arguments.subject, arguments.overrides));
    make_evaluation(workshop);
}

void write(const EvaluateArguments& arguments, const nlohmann::json& results) {
    core::write_json(std::filesystem::path(arguments.out) / "evaluation.json", results);
    if (arguments.json) std::cout << results.dump() << std::endl;
    else std::cout << text_of(evaluation::comparison_table(results));
}

std::vector<std::uint64_t> chosen_seeds(const EvaluateArguments& arguments) {
    std::vector<std::uint64_t> seeds;
    for (std::int64_t i = 0; i < arguments.seeds; ++i) seeds.push_back(static_cast<std::uint64_t>(arguments.seed + i));
    return seeds;
}

void evaluate_samples_of_model(EvaluateArguments& arguments) {
    const auto generator = inference::open_generator(arguments.subject, inference::sampling_of(arguments.sampler, arguments.steps), arguments.engine.chosen());
    arguments.measuring.seeds = chosen_seeds(arguments);
    const nlohmann::json results = measure(arguments.measuring, {{arguments.subject, generator.get()}});
    const std::filesystem::path out(arguments.out);
    const auto wanted = inference::plan(100, static_cast<std::uint64_t>(arguments.seed), {}, generator->prior());
    draw_samples(out / "samples", generator->form(), generator->draw(wanted), wanted.classes);
    write(arguments, results);
}

void evaluate_prompted(EvaluateArguments& arguments) {
    evaluation::Measuring& measuring = arguments.measuring;
    if (!measuring.inception.empty() || !measuring.reference.empty()) throw core::UsageError("--inception and --reference are not for models of captions; give --data captions:FOLDER");
    inference::PromptedGenerator generator(arguments.subject, inference::sampling_of(arguments.sampler, arguments.steps), std::nullopt, arguments.engine.chosen());
    measuring.seeds = chosen_seeds(arguments);
    write(arguments, evaluation::measure_captions(measuring, {{arguments.subject, &generator}}));
}

/// Whether images lie there, not a model that draws them.
bool is_data(const std::filesystem::path& path) {
    return std::filesystem::exists(path) && !models::is_ensemble_directory(path) && !std::filesystem::exists(path / "config.json");
}

/// A picture for every caption, drawn into OUT/pictures where the subject is a model, and all of them measured (the protocol of COCO-30k).
void evaluate_on_captions(EvaluateArguments& arguments) {
    evaluation::Measuring& measuring = arguments.measuring;
    if (arguments.seeds != 1) throw core::UsageError("--seeds: with --captions one seed is measured; run others with --seed and another --out");
    std::vector<std::string> captions;
    data::PromptFile file(arguments.captions);
    for (std::string caption; file.line() < measuring.count && file.next(caption);) captions.push_back(caption);
    constexpr std::size_t fewest = 4;  // of precision and recall, which look at 3 neighbours
    if (captions.size() < fewest) core::fail("{}: {} captions are too few; at least {} are needed", arguments.captions, captions.size(), fewest);
    measuring.count = static_cast<std::int64_t>(captions.size());
    std::string pictures = arguments.subject;
    if (draws_prompts(pictures)) {
        pictures = (std::filesystem::path(arguments.out) / "pictures").string();
        const PromptPictures wanted{arguments.subject, arguments.sampler, arguments.steps, arguments.guidance, arguments.seed, arguments.side};
        draw_prompts(wanted, captions, pictures, arguments.engine.chosen());
    } else if (!is_data(pictures)) {
        throw core::UsageError("--captions: " + arguments.subject + " reads no prompts; name a model that does, a diffusers directory, or images that were made of the captions");
    }
    write(arguments, measure_images(measuring, pictures, measuring.clip.empty() ? std::span<const std::string>{} : captions));
}

void evaluate_images(const EvaluateArguments& arguments) { write(arguments, measure_images(arguments.measuring, arguments.subject)); }

void evaluate_model(EvaluateArguments& arguments) {
    if (!arguments.overrides.empty()) throw core::UsageError("key=value pairs go with a config; \"" + arguments.overrides.front() + "\" follows a model");
    evaluation::Measuring& measuring = arguments.measuring;
    if (measuring.data.empty() == measuring.reference.empty()) {
        throw core::UsageError("--data is needed: held-out data to measure against; or --reference: statistics of it (.npz)");
    }
    if (!measuring.reference.empty() && !measuring.save_reference.empty()) throw core::UsageError("--save-reference takes statistics of --data, not of --reference");
    if (arguments.out.empty()) throw core::UsageError("--out is needed: the folder that gets evaluation.json and samples.png");
    measuring.device = inference::device_of(arguments.engine.device);
    if (!arguments.captions.empty()) return evaluate_on_captions(arguments);
    if (!measuring.clip.empty()) throw core::UsageError("--clip needs --captions FILE, a caption a line: what the pictures should show");
    if (arguments.side > 0 || arguments.guidance) throw core::UsageError("--size and --guidance go with --captions");
    if (is_data(arguments.subject)) evaluate_images(arguments);
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
    command->add_option("--classifier", arguments->measuring.classifier, "classifier whose features measure images");
    command->add_option("--inception", arguments->measuring.inception, "weights of Inception-v3 (pt_inception-2015-12-05-*.pth, or safetensors): FID, KID, Inception Score");
    command->add_option("--captions", arguments->captions, "a caption a line: a picture is drawn for each of the first --count, or image i of SUBJECT is of caption i");
    command->add_option("--clip", arguments->measuring.clip, "directory of a CLIPModel (transformers'), with --captions: CLIP score");
    command->add_option("--size", arguments->side, "with --captions: pictures are scaled to squares of so many pixels; 0: as drawn")->check(CLI::Range(0, 4096));
    command->add_option("--guidance", arguments->guidance, "with --captions, of diffusers directories and teachers")->check(CLI::Range(0.0, 100.0));
    command->add_option("--reference", arguments->measuring.reference, "statistics (.npz with mu and sigma) instead of --data");
    command->add_option("--save-reference", arguments->measuring.save_reference, "write the statistics of --data to this .npz");
    command->add_option("--count", arguments->measuring.count, "samples a seed")->check(CLI::Range(std::int64_t{2}, std::int64_t{10'000'000}));
    command->add_option("--seed", arguments->seed, "first seed")->check(CLI::NonNegativeNumber);
    command->add_option("--seeds", arguments->seeds, "how many seeds, for mean and spread")->check(CLI::Range(1, 1000));
    command->add_option("--sampler", arguments->sampler, "without: one step for students, 18 Heun steps for teachers, 25 of dpm++ for diffusers directories")->type_name("{one-step,heun,ddim,dpm++}");
    command->add_option("--steps", arguments->steps, "steps of heun and ddim, with --sampler")->check(CLI::Range(1, 10000));
    arguments->engine.add_to(*command);
    command->add_option("--out", arguments->out, "folder for evaluation.json and samples.png");
    command->add_flag("--json", arguments->json, "print the result as JSON");
    command->footer("Examples:\n  atelier evaluate models/fashion-mnist/k4 --data /usr/share/datasets/fashion-mnist --count 10000 --seed 0 --out eval\n"
                    "  atelier evaluate imagenet64-msd4 --inception pt_inception-2015-12-05-6726825d.pth --reference imagenet-64x64.npz --count 50000 --out fid\n"
                    "  atelier evaluate pictures.npz --inception pt_inception-2015-12-05-6726825d.pth --data imagenet-64x64.zip --out fid\n"
                    "  atelier evaluate sd15-msd4 --captions coco-30k.txt --size 256 --count 30000 --inception pt_inception-2015-12-05-6726825d.pth --clip clip-vit-base-patch32 "
                    "--data coco-val-256.zip --out coco\n"
                    "  atelier evaluate configs/toy2d.toml output=runs/toy2d");
    command->callback([arguments] {
        if (arguments->subject.ends_with(".toml")) evaluate_config(*arguments);
        else evaluate_model(*arguments);
    });
}

}  // namespace atelier::cli
