#include <CLI/CLI.hpp>
#include <iostream>

#include "atelier/cli/commands.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/data/import_images.h"

namespace atelier::cli {

namespace {

struct ImportArguments {
    std::string from, to, filter = "lanczos";
    data::ImportSettings settings;
};

void import_data(ImportArguments arguments) {
    arguments.settings.filter = core::resize_filter(arguments.filter);
    if (std::filesystem::path(arguments.to).extension() != ".zip") throw core::UsageError(arguments.to + ": is written as a zip archive; name it so");
    const data::EncodedImages images = data::images_at(arguments.from);
    core::Progress progress("importing", images.count, "images");
    data::import_images(images, arguments.to, arguments.settings, [&](std::int64_t done) { progress.update(done); });
    core::log::info("{}: {} images of {}x{} in {} classes", arguments.to, images.count, arguments.settings.side, arguments.settings.side, images.classes);
}

}  // namespace

void add_import_command(CLI::App& app) {
    auto arguments = std::make_shared<ImportArguments>();
    CLI::App* command = app.add_subcommand("import", "Make a data set of images: squares of one size in a zip archive, classes from folders");
    command->add_option("SRC", arguments->from, "a folder of images (a sub-folder a class), a zip archive in EDM's form, WebDataset tars")->required();
    command->add_option("DST", arguments->to, "the .zip to make; what an interrupted call left beside it is gone on with")->required();
    command->add_option("--size", arguments->settings.side, "pixels a side")->required()->check(CLI::Range(1, 4096));
    command->add_option("--channels", arguments->settings.channels, "3: colour, 1: grey")->check(CLI::IsMember({1, 3}));
    command->add_option("--filter", arguments->filter, "how images are scaled, as Pillow's of these names (triangle: its BILINEAR); EDM's sets are made with lanczos")
        ->check(CLI::IsMember(core::resize_filter_names()))
        ->capture_default_str();
    command->footer("Examples:\n  atelier import ILSVRC2012/train data/imagenet64.zip --size 64\n  atelier import shards data/mine.zip --size 32 --channels 1");
    command->callback([arguments] { import_data(*arguments); });
}

}  // namespace atelier::cli
