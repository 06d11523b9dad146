#include <CLI/CLI.hpp>
#include <iostream>
#include <numeric>

#include "atelier/cli/commands.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/inference/quantise.h"
#include "atelier/metrics/measuring.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/identify_path.h"
#include "atelier/models/prompt_encoder.h"
#include "atelier/report/comparison.h"
#include "atelier/report/report_sections.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;
using Precision = inference::Engine::Precision;

struct QuantizeArguments {
    std::string model, out;
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

void quantise_ensemble(const QuantizeArguments& arguments) {
    const models::Ensemble ensemble = models::read_ensemble(arguments.model);
    models::write_changed_ensemble(
        ensemble, arguments.out, [&](std::int64_t k, models::Model model) {
            log_layers(fmt::format("student {}", k),
                       inference::quantise(model, ensemble.partition.cell(k), arguments.settings));
            return model;
        });
}

/// The classes of a student's cell, or all classes.
std::vector<std::int64_t> classes_of(const models::ModelCard& model, const std::string& where) {
    if (model.assignment && model.assignment->cell) {
        for (const std::int64_t c : *model.assignment->cell) {
            if (c >= model.network.label_dim)
                core::fail("{}: place.cell holds class {}; the network knows {}", where, c,
                           model.network.label_dim);
        }
        return *model.assignment->cell;
    }
    std::vector<std::int64_t> all(static_cast<std::size_t>(model.network.label_dim));
    std::iota(all.begin(), all.end(), 0);
    return all;
}

void quantise_model(const QuantizeArguments& arguments) {
    models::Model model = models::read_model(arguments.model);
    log_layers(arguments.model,
               inference::quantise(model, classes_of(model, arguments.model), arguments.settings));
    core::create_directory_atomically(
        arguments.out, [&](const fs::path& folder) { models::write_model(folder, model); });
}

std::unique_ptr<inference::Generator> open_variant(const std::string& path, Precision precision) {
    return inference::open_generator(
        path, std::nullopt, {.kind = inference::Engine::Kind::openvino, .precision = precision});
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
void compare(const QuantizeArguments& arguments) {
    const auto fp32 = open_variant(arguments.model, Precision::fp32),
               bf16 = open_variant(arguments.model, Precision::bf16),
               int8 = open_variant(arguments.out, Precision::int8);
    const std::vector<std::pair<std::string, inference::Generator*>> variants{
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
    report::add_side_by_side(report, variants);
    add_all_layers(report, arguments.out);
    report.write(fs::path(arguments.out) / "report.html");
    std::cout << text_of(table);
    core::log::info("report: {}", (fs::path(arguments.out) / "report.html").string());
}

void quantize(QuantizeArguments& arguments) {
    if (fs::exists(arguments.out))
        throw core::UsageError(arguments.out + " exists; --out names a new directory");
    arguments.model = models::model_at(arguments.model).string();
    if (models::is_diffusers_directory(arguments.model))
        throw core::UsageError(arguments.model +
                               ": is a diffusers directory, which is not quantised; quantize takes "
                               "models and ensembles of classes");
    core::check_output_folder(arguments.out);
    models::reject_prompts(arguments.model);
    if (models::is_ensemble_directory(arguments.model)) quantise_ensemble(arguments);
    else quantise_model(arguments);
    if (arguments.config.data.empty())
        core::log::info("no --data: the effect of int8 on quality and latency is not measured");
    else compare(arguments);
}

}  // namespace

void add_quantize_command(CLI::App& app) {
    auto arguments = std::make_shared<QuantizeArguments>();
    CLI::App* command = app.add_subcommand(
        "quantize", "Make an int8 model or ensemble, and compare it with what it was made from");
    command->add_option("MODEL", arguments->model, "a model directory or an ensemble directory")
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
        "  atelier sample k4-int8 --count 64 --out grid.png");
    command->callback([arguments] { quantize(*arguments); });
}

}  // namespace atelier::cli
