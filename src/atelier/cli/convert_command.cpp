#include <CLI/CLI.hpp>

#include "atelier/cli/commands.h"
#include "atelier/cli/low_rank_option.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/inference/export.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/edm_checkpoint.h"
#include "atelier/models/identify_path.h"
#include "atelier/models/latent_model.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

struct ConvertArguments {
    std::string from, to, config, prefix, form;
    std::vector<std::string> low_rank;
};

void import_checkpoint(const ConvertArguments& arguments) {
    if (fs::exists(arguments.to))
        core::fail("{}: exists already; name a new directory", arguments.to);
    const models::Checkpoint checkpoint =
        arguments.config.empty()
            ? models::read_edm_pickle(arguments.from)
            : models::read_state_dictionary(arguments.from, core::read_json(arguments.config),
                                            arguments.prefix);
    models::write_checkpoint(arguments.to, checkpoint, arguments.from);
}

void export_graphs(const ConvertArguments& arguments, inference::GraphFormat form) {
    if (models::is_diffusers_directory(arguments.from))
        inference::export_diffusers(models::DiffusersDirectory(arguments.from), arguments.to, form);
    else if (models::is_ensemble_directory(arguments.from))
        inference::export_ensemble(models::read_ensemble(arguments.from), arguments.to, form);
    else inference::export_model(arguments.from, arguments.to, form);
    core::log::info("{}: written", arguments.to);
}

/// Rejects sources that cannot be converted, before --to is checked.
void check_source(ConvertArguments& arguments) {
    using Kind = models::PathInfo::Kind;
    arguments.from = models::located(arguments.from).string();
    const Kind kind = models::identify_path(arguments.from).kind;
    const bool network = kind == Kind::model || kind == Kind::ensemble || kind == Kind::diffusers;
    if (kind == Kind::run) arguments.from = models::model_at(arguments.from).string();
    else if (kind == Kind::nothing && !arguments.form.empty())
        models::reject_as_model(arguments.from);
    else if (kind == Kind::diffusers_part || kind == Kind::diffusers_network ||
             kind == Kind::stable_diffusion_file || kind == Kind::low_rank_file ||
             kind == Kind::exported || kind == Kind::image || kind == Kind::config)
        models::reject_as_model(arguments.from);
    else if (!network && fs::is_directory(arguments.from)) models::reject_as_model(arguments.from);
}

void convert(ConvertArguments& arguments) {
    check_source(arguments);
    const std::vector<models::LowRankFile> low_rank = low_rank_files(arguments.low_rank);
    if (!low_rank.empty() &&
        (arguments.form != "diffusers" || !models::is_diffusers_directory(arguments.from)))
        throw core::UsageError(
            "--lora merges deltas into a diffusers directory, with --to diffusers");
    if (const auto form = inference::graph_format(arguments.form))
        return export_graphs(arguments, *form);
    if (models::is_diffusers_directory(arguments.from)) {
        if (arguments.form != "diffusers")
            throw core::UsageError(
                arguments.from +
                " is a diffusers directory; it is written with --to diffusers, onnx or openvino");
        const models::DiffusersDirectory directory(arguments.from);
        return models::write_diffusers_directory(directory, arguments.to,
                                                 models::read_low_rank(low_rank, directory));
    }
    if (fs::is_directory(arguments.from)) {
        if (arguments.form == "diffusers")
            return models::write_as_diffusers(arguments.from, arguments.to);
        if (arguments.form != "edm")
            throw core::UsageError(
                "a model directory is exported with --to onnx, --to openvino or --to edm, or a "
                "student of Stable Diffusion with --to diffusers");
        if (fs::path(arguments.to).extension() != ".safetensors")
            throw core::UsageError(arguments.to + ": is written as safetensors; name it so");
        return models::write_edm_state(arguments.to, arguments.from);
    }
    if (!arguments.form.empty())
        throw core::UsageError("--to is for exporting model directories; " + arguments.from +
                               " is none");
    if (arguments.config.empty() && fs::path(arguments.from).extension() == ".safetensors") {
        throw core::UsageError(arguments.from +
                               ": a state dictionary does not say which network it is of; name its "
                               "config.json with --config");
    }
    import_checkpoint(arguments);
}

}  // namespace

void add_convert_command(CLI::App& app) {
    auto arguments = std::make_shared<ConvertArguments>();
    CLI::App* command =
        app.add_subcommand("convert",
                           "Make a model directory of another project's checkpoint, or the "
                           "reverse; nothing in a pickle is run");
    command
        ->add_option("SRC", arguments->from,
                     "an EDM pickle, a state dictionary (.pth, .pt, .bin, .safetensors), a model, "
                     "ensemble or diffusers directory")
        ->required();
    command
        ->add_option("DST", arguments->to,
                     "the model directory to make, or with --to the file or directory")
        ->required();
    CLI::Option* config = command->add_option(
        "--config", arguments->config, "config.json of the network that a state dictionary is of");
    command
        ->add_option("--prefix", arguments->prefix,
                     "where the network lies in a state dictionary that holds several")
        ->needs(config);
    command
        ->add_option(
            "--to", arguments->form,
            "onnx, openvino: graphs for other runtimes, of a model (one .onnx or .xml file), an "
            "ensemble (a directory with a file for each student) or a diffusers directory; "
            "edm: a model directory as a state dictionary of EDM's classes (.safetensors); "
            "diffusers: a diffusers directory with one safetensors file a network, of another or "
            "of a student of Stable Diffusion")
        ->excludes(config)
        ->check(CLI::IsMember({"onnx", "openvino", "edm", "diffusers"}))
        ->type_name("{onnx,openvino,edm,diffusers}");
    add_low_rank_option(*command, arguments->low_rank);
    command->footer(
        "Examples:\n  atelier convert edm-imagenet-64x64-cond-adm.pkl models/teacher\n"
        "  atelier convert pytorch_model.bin models/dmd2 --config models/teacher/config.json\n"
        "  atelier convert runs/x/students/0 student.safetensors --to edm\n"
        "  atelier convert models/fashion-mnist/k4 k4-onnx --to onnx\n"
        "  atelier convert stable-diffusion-sharded stable-diffusion --to diffusers\n"
        "  atelier convert sdxl sdxl-style --to diffusers --lora style.safetensors:0.8\n"
        "  atelier convert runs/sd/ensemble/students/0 student-0 --to diffusers");
    command->callback([arguments] { convert(*arguments); });
}

}  // namespace atelier::cli
