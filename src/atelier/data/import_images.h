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
    core::Colour background = core::white;  // behind transparent pixels, and around padded images
    Fit fit = Fit::crop;
    bool replace = false;   // a finished archive that is there, once the new one is complete
    bool skip_bad = false;  // leave out images that cannot be read, and list them
};

/// "white", "black" or "#rrggbb". Throws core::UsageError.
core::Colour colour_of(std::string_view text);

/// Callbacks for progress; may be empty.
struct ImportListener {
    std::function<void(std::int64_t count)> checked, written;
};

struct ImportReport {
    std::int64_t images = 0;           // in the archive
    std::vector<std::string> skipped;  // error messages of the others
};

/// Path of the list of skipped images.
std::filesystem::path skipped_list_of(const std::filesystem::path& to);

/// Throws core::Error when `to` exists and may not be replaced.
void check_import_target(const std::filesystem::path& to, const ImportSettings& settings);

/// Writes `images` into a new zip archive in EDM's format: PNGs of the centre crop of each image
/// (or all of it, padded), scaled to `side`, with their labels and the settings in dataset.json,
/// and captions in metadata.jsonl. Headers are checked first, so that all images that are something
/// else, too large or too short are reported before the work begins; images that turn out broken
/// later are collected too, and the sound ones are kept. An interrupted or failed import is
/// continued as far as settings and files are the same. Throws core::Error when `to` exists, or
/// when some images cannot be read and `skip_bad` is not set, after a warning for each; throws
/// core::Interrupted when a stop is requested.
ImportReport import_images(const EncodedImages& images, const std::filesystem::path& to,
                           const ImportSettings& settings, const ImportListener& listener = {});

}  // namespace atelier::data
