#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "atelier/core/resize.h"
#include "atelier/data/encoded_images.h"

namespace atelier::data {

enum class Fit { crop, pad };

struct ImportSettings {
    int side = 64;
    int channels = 3;
    core::ResizeFilter filter = core::ResizeFilter::lanczos;
    core::Colour background =
        core::white;  // behind what is transparent, and beside images that are padded
    Fit fit = Fit::crop;
    bool skip_bad = false;  // images that cannot be read are left out, and listed
};

/// "white", "black" or "#rrggbb". Throws core::UsageError.
core::Colour colour_of(std::string_view text);

/// What hears of the progress; may be empty.
struct ImportListener {
    std::function<void(std::int64_t count)> checked, written;
};

struct ImportReport {
    std::int64_t images = 0;           // in the archive
    std::vector<std::string> skipped;  // what was said of each that is not
};

/// Where an import lists what it skipped.
std::filesystem::path skipped_list_of(const std::filesystem::path& to);

/// Writes `images` into a new zip archive in EDM's form: PNGs of the centred square of each (or all
/// of it, padded), scaled to `side`, with their labels and how they were made in dataset.json, and
/// captions in metadata.jsonl. Headers are looked at first, so that all images that are something
/// else, too large or too short are known before the work begins; those that turn out broken in it
/// are collected too, and what is sound is kept. What an interrupted or failed import left is gone
/// on with, as far as settings and files are the same. Throws core::Error when `to` exists, or some
/// images cannot be read and are not to be skipped, after a warning for each; and core::Interrupted
/// when a stop is requested.
ImportReport import_images(const EncodedImages& images, const std::filesystem::path& to,
                           const ImportSettings& settings, const ImportListener& listener = {});

}  // namespace atelier::data
