#include <CLI/CLI.hpp>
#include <iostream>

#include "atelier/cli/commands.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/data/prompt_file.h"
#include "atelier/inference/pipeline.h"
#include "atelier/inference/quantise.h"
#include "atelier/metrics/measuring.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"
#include "atelier/models/latent_model.h"
#include "atelier/report/comparison.h"
#include "atelier/report/report_sections.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;
using Precision = inference::Engine::Precision;

struct QuantizeArguments {
    std::string model, out, prompts;
    metrics::EvaluationConfig config;
    inference::QuantisationSettings settings;
};

void log_layers(const std::string& what, const std::vector<inference::LayerError>& layers) {
    double share = 0;
    std::int64_t int8 = 0;
    for (const auto& each : layers) {
        int8 += each.in_int8;
        share += each.in_int8 ? each.layer.share : 0;
    }
    core::log::info("{}: {} of {} convolutions in int8, {:.1f} % of their work", what, int8,
                    layers.size(), 100 * share);
}

/// The prompts by which a model is calibrated: those of a file, or the captions of the data.
std::vector<std::string> calibration_prompts(const QuantizeArguments& arguments) {
    constexpr std::size_t most = 4096;
    std::vector<std::string> prompts;
    if (!arguments.prompts.empty()) {
        data::PromptFile file(arguments.prompts);
        for (std::string prompt; prompts.size() < most && file.next(prompt);)
            prompts.push_back(prompt);
    } else if (!arguments.config.data.empty()) {
        prompts = data::open_dataset(
                      {.path = arguments.config.data, .split = arguments.config.split, .limit = 0})
                      ->captions();
        prompts.resize(std::min(prompts.size(), most));
    }
    if (prompts.empty())
        throw core::UsageError(
            "--prompts is needed: a file of texts, one per line, with which the layers of a model "
            "that reads prompts are calibrated; or --data with captions");
    return prompts;
}

/// The conditions by which each student is calibrated: its own.
class CalibrationConditions {
public:
    CalibrationConditions(const QuantizeArguments& arguments, const inference::Pipeline& pipeline)
        : pipeline_(pipeline) {
        if (!pipeline.reads_prompts()) return;
        const std::vector<std::string> prompts = calibration_prompts(arguments);
        const auto owners = pipeline.route(inference::conditions_of(prompts));
        const auto most = static_cast<std::size_t>(arguments.settings.samples);
        for (std::size_t i = 0; i < prompts.size(); ++i) {
            auto& own = prompts_[owners[i].student];
            if (own.size() < most) own.push_back(prompts[i]);
            if (any_.size() < most) any_.push_back(prompts[i]);
        }
    }

    inference::Conditioning of_student(std::int64_t k) const {
        std::vector<inference::Condition> conditions;
        if (!pipeline_.reads_prompts()) {
            for (const std::int64_t c : pipeline_.partition().cell(k))
                conditions.emplace_back(inference::ClassId{c});
            return pipeline_.encode(conditions);
        }
        const auto own = prompts_.find(k);
        for (const std::string& prompt : own == prompts_.end() ? any_ : own->second)
            conditions.emplace_back(prompt);
        if (pipeline_.guidance().value_or(1) != 1) conditions.emplace_back(std::string());
        inference::Conditioning encoded = pipeline_.encode(conditions);
        // Those of a diffusers directory have the negative prompt's rows beside them.
        if (pipeline_.is_diffusers())
            encoded.rows = encoded.rows.select(1, encoded.rows.size(1) - 1).contiguous();
        return encoded;
    }

    /// Some prompts, for showing samples; empty for classes.
    const std::vector<std::string>& some() const { return any_; }

private:
    const inference::Pipeline& pipeline_;
    std::map<std::int64_t, std::vector<std::string>> prompts_;  // by their students
    std::vector<std::string> any_;
};

void quantise_ensemble(const QuantizeArguments& arguments,
                       const CalibrationConditions& conditions) {
    models::write_changed_ensemble(
        models::read_ensemble(arguments.model), arguments.out,
        [&](std::int64_t k, models::Model model) {
            log_layers(fmt::format("student {}", k),
                       inference::quantise(model, conditions.of_student(k), arguments.settings));
            return model;
        });
}

/// The classes of a student's cell, or those of the conditions.
inference::Conditioning conditions_of(const models::ModelCard& model, const std::string& where,
                                      const CalibrationConditions& conditions) {
    const bool classes = conditions.some().empty() && model.network.label_dim > 0;
    if (classes && model.assignment && model.assignment->cell) {
        for (const std::int64_t c : *model.assignment->cell) {
            if (c >= model.network.label_dim)
                core::fail("{}: place.cell holds class {}; the network knows {}", where, c,
                           model.network.label_dim);
        }
        return {*model.assignment->cell};
    }
    return conditions.of_student(0);
}

void quantise_model(const QuantizeArguments& arguments, const CalibrationConditions& conditions) {
    core::create_directory_atomically(arguments.out, [&](const fs::path& folder) {
        fs::path source = arguments.model;
        if (models::is_diffusers_directory(source)) {
            models::write_latent_model(models::DiffusersDirectory(source), folder);
            source = folder;
        } else if (!conditions.some().empty()) {
            models::copy_parts(inference::parts_directory(source), folder);
        }
        models::Model model = models::read_model(source);
        log_layers(arguments.model,
                   inference::quantise(model, conditions_of(model, arguments.model, conditions),
                                       arguments.settings));
        models::write_model(folder, model);
    });
}

std::unique_ptr<inference::Pipeline> open_variant(const std::string& path, Precision precision) {
    return inference::Pipeline::load(
        path, {.engine = {.kind = inference::Engine::Kind::openvino, .precision = precision}});
}

/// The total size of all weight files in a directory, in MB.
std::string size_text(const fs::path& directory) {
    std::uintmax_t bytes = 0;
    for (const auto& entry : fs::recursive_directory_iterator(directory)) {
        if (entry.path().filename() == "model.safetensors") bytes += entry.file_size();
    }
    return fmt::format("{:.2f} MB", static_cast<double>(bytes) / 1e6);
}

/// A table of a model's layers: precision and quantisation error.
void add_layers(report::Report& report, const std::string& name,
                const models::Quantisation& quantisation) {
    report::Table table;
    table.columns = {"layer", "precision", "error alone", "share of work", "input range"};
    for (const models::Quantisation::Layer& layer : quantisation.layers) {
        table.rows.push_back({layer.name, layer.precision, fmt::format("{:.2g}", layer.error),
                              fmt::format("{:.2f} %", 100 * layer.share_of_work),
                              fmt::format("{:.3g}", layer.input_range)});
    }
    table.caption =
        fmt::format("{}: all of int8 together makes an error of {:.2g} of the network's output.",
                    name, quantisation.error);
    report.add_table(table);
}

void add_all_layers(report::Report& report, const fs::path& path) {
    report.add_heading("Layers");
    if (!models::is_ensemble_directory(path)) {
        add_layers(report, "model", *models::read_card(path).quantisation);
        return;
    }
    const models::Ensemble ensemble = models::read_ensemble(path);
    for (std::size_t k = 0; k < ensemble.students.size(); ++k) {
        add_layers(report, fmt::format("student {}", k),
                   *models::read_card(ensemble.students[k]).quantisation);
    }
}

/// Compares the model in three precisions: quality, speed, and samples from the same noise.
void compare(const QuantizeArguments& arguments, const std::vector<std::string>& prompts) {
    const auto fp32 = open_variant(arguments.model, Precision::fp32),
               bf16 = open_variant(arguments.model, Precision::bf16),
               int8 = open_variant(arguments.out, Precision::int8);
    const metrics::EvaluatedModels variants{
        {"fp32", fp32.get()}, {"bf16", bf16.get()}, {"int8", int8.get()}};
    const nlohmann::json results = measure(arguments.config, variants);
    core::write_json(fs::path(arguments.out) / "quantisation.json", results);
    report::Report report(
        "Quantisation",
        fmt::format("{} in float32, in bfloat16, and quantised to int8", arguments.model));
    report::Table table = report::comparison_table(results);
    table.caption = fmt::format("OpenVINO on this CPU; latency of one sample; {}.", table.caption);
    report.add_table(table);
    report.add_facts({{"files, float32", size_text(arguments.model)},
                      {"files, int8", size_text(arguments.out)}});
    report::add_side_by_side(report, variants, prompts);
    add_all_layers(report, arguments.out);
    report.write(fs::path(arguments.out) / "report.html");
    std::cout << text_of(table);
    core::log::info("report: {}", (fs::path(arguments.out) / "report.html").string());
}

void quantize(QuantizeArguments& arguments) {
    if (fs::exists(arguments.out))
        throw core::UsageError(arguments.out + " exists; --out names a new directory");
    arguments.model = models::model_at(arguments.model).string();
    core::check_output_folder(arguments.out);
    if (models::is_diffusers_directory(arguments.model))
        models::card_of(
            models::DiffusersDirectory(arguments.model));  // or what cannot be quantised
    const auto pipeline = inference::Pipeline::load(arguments.model);
    const CalibrationConditions conditions(arguments, *pipeline);
    if (models::is_ensemble_directory(arguments.model)) quantise_ensemble(arguments, conditions);
    else quantise_model(arguments, conditions);
    if (arguments.config.data.empty())
        core::log::info("no --data: the effect of int8 on quality and latency is not measured");
    else if (pipeline->is_diffusers())
        core::log::info(
            "{}: samples with Heun steps, not with a diffusers directory's samplers, so the two "
            "are "
            "not compared here; atelier evaluate --captions measures either",
            arguments.out);
    else compare(arguments, conditions.some());
}

}  // namespace

void add_quantize_command(CLI::App& app) {
    auto arguments = std::make_shared<QuantizeArguments>();
    CLI::App* command = app.add_subcommand(
        "quantize", "Make an int8 model or ensemble, and compare it with what it was made from");
    command->add_option("MODEL", arguments->model, "a model, an ensemble or a diffusers directory")
        ->required();
    command->add_option("--out", arguments->out, "the new directory; loads like any other")
        ->required();
    command->add_option(
        "--data", arguments->config.data,
        "held-out data to compare float32, bfloat16 and int8 on; without, nothing is compared");
    command->add_option("--classifier", arguments->config.classifier,
                        "classifier whose features measure images");
    command->add_option("--count", arguments->config.count, "samples to compare by")
        ->check(CLI::Range(std::int64_t{2}, std::int64_t{10'000'000}));
    command->add_option("--prompts", arguments->prompts,
                        "a file of prompts, one per line, to calibrate models that read prompts; "
                        "without: captions of --data");
    command
        ->add_option("--samples", arguments->settings.samples,
                     "samples per student for calibrating the ranges of its layers' inputs")
        ->check(CLI::Range(1, 100000));
    command->add_option("--seed", arguments->settings.seed, "of those samples")
        ->check(CLI::NonNegativeNumber);
    command
        ->add_option("--tolerance", arguments->settings.tolerance,
                     "error that int8 may make, relative to the network's output; layers beyond "
                     "stay in bfloat16")
        ->check(CLI::Range(0.0, 1.0));
    command->footer(
        "Calibrates every student on its own conditions, from its own noise.\n"
        "Example:\n  atelier quantize models/fashion-mnist/k4 --data "
        "/usr/share/datasets/fashion-mnist --out k4-int8\n"
        "  atelier sample k4-int8 --count 64 --out grid.png\n"
        "  atelier quantize models/captions --prompts prompts.txt --out captions-int8");
    command->callback([arguments] { quantize(*arguments); });
}

}  // namespace atelier::cli
