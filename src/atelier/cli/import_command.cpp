#include <CLI/CLI.hpp>
#include <iostream>
#include <optional>

#include "atelier/cli/commands.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/progress.h"
#include "atelier/data/data_form.h"
#include "atelier/data/image_files.h"
#include "atelier/data/import_images.h"

namespace atelier::cli {

namespace {

struct ImportArguments {
    std::string from, to, split = "train", filter = "lanczos", background = "white", fit = "crop";
    bool no_captions = false;
    data::ImportSettings settings;
};

std::string label_summary(const data::EncodedImages& images) {
    if (!images.captions.empty()) return ", each with its caption";
    if (images.classes == 0) return ", unlabelled";
    return fmt::format(" in {} {}", images.classes, images.classes == 1 ? "class" : "classes");
}

void import_data(ImportArguments arguments) {
    if (core::lower_case(std::filesystem::path(arguments.to).extension().string()) != ".zip")
        throw core::UsageError(arguments.to + ": is written as a zip archive; name it so");
    data::ImportSettings& settings = arguments.settings;
    settings.filter = core::resize_filter(arguments.filter);
    settings.background = data::colour_of(arguments.background);
    settings.fit = arguments.fit == "pad" ? data::Fit::pad : data::Fit::crop;
    data::check_import_target(arguments.to, settings);
    const data::EncodedImages images = data::images_in(
        {.path = arguments.from,
         .split = arguments.split,
         .captions = arguments.no_captions ? data::Captions::ignored : data::Captions::automatic});
    data::log_passed_over(images);
    std::optional<core::Progress> progress;
    progress.emplace("looking at headers", images.count, "images");
    bool writing = false;
    const auto written = [&](std::int64_t done) {
        if (!writing) progress.emplace("importing", images.count, "images", done);
        writing = true;
        progress->update(done);
    };
    const data::ImportReport report =
        data::import_images(images, arguments.to, settings,
                            {[&](std::int64_t done) { progress->update(done); }, written});
    progress.reset();
    for (const std::string& note : images.decoder->notes())
        core::log::info("{}: {}", arguments.from, note);
    if (!report.skipped.empty()) {
        core::log::warning(
            "{}: {} of {} images cannot be read and were left out; {} lists them, the first: {}",
            arguments.from, report.skipped.size(), images.count,
            data::skipped_list_of(arguments.to).string(), report.skipped.front());
    }
    core::log::info("{}: {} {} of {}x{}{}", arguments.to, report.images,
                    report.images == 1 ? "image" : "images", settings.side, settings.side,
                    label_summary(images));
}

}  // namespace

void add_import_command(CLI::App& app) {
    auto arguments = std::make_shared<ImportArguments>();
    CLI::App* command =
        app.add_subcommand("import",
                           "Make a data set of images: squares of one size in a zip archive, with "
                           "classes from folders or with captions");
    command
        ->add_option(
            "SRC", arguments->from,
            std::string(data::image_forms) +
                "; classes are sub-folders, or there are captions beside the images; captions:PATH "
                "insists on captions")
        ->required();
    command->add_option("DST", arguments->to, "the .zip to make; an interrupted import is resumed")
        ->required();
    command->add_option("--size", arguments->settings.side, "pixels per side")
        ->required()
        ->check(CLI::Range(1, 4096));
    command->add_option("--channels", arguments->settings.channels, "3: colour, 1: grey")
        ->check(CLI::IsMember({1, 3}))
        ->capture_default_str();
    command
        ->add_option("--filter", arguments->filter,
                     "how images are scaled, as Pillow's of these names (triangle: its BILINEAR); "
                     "EDM's sets are made with lanczos")
        ->check(CLI::IsMember(core::resize_filter_names()))
        ->capture_default_str();
    command
        ->add_option("--fit", arguments->fit,
                     "crop: the centred square; pad: the whole image, padded with the background")
        ->check(CLI::IsMember({"crop", "pad"}))
        ->capture_default_str();
    command
        ->add_option("--background", arguments->background,
                     "behind what is transparent: white, black or #rrggbb")
        ->capture_default_str();
    command
        ->add_option("--split", arguments->split,
                     "where SRC has train/ and test/ (or val/), or IDX files of both: which")
        ->check(CLI::IsMember({"train", "test"}))
        ->capture_default_str();
    command->add_flag("--no-captions", arguments->no_captions,
                      "classes, though there are captions");
    command->add_flag("--force", arguments->settings.replace,
                      "replace DST if it is there, once the new one is complete");
    command->add_flag("--skip-bad", arguments->settings.skip_bad,
                      "leave out images that cannot be read, and list them beside DST");
    command->footer(
        "Examples:\n  atelier import ILSVRC2012/train data/imagenet64.zip --size 64\n  atelier "
        "import shards data/mine.zip --size 32 --channels 1\n  atelier import captioned "
        "data/captioned.zip --size 64 --fit pad");
    command->callback([arguments] { import_data(*arguments); });
}

}  // namespace atelier::cli
