#pragma once

#include <filesystem>

namespace atelier::data {

/// The forms in which data lie on a disk. `dataset.cpp` opens each, and `image_files.cpp` imports
/// from those that hold images.
enum class DataForm {
    nothing,
    points,
    idx_folder,
    npz,
    folder,
    tars,
    zip,
};

/// All of them, and what else `data.path` may be, for messages and help.
inline constexpr const char* data_forms =
    "a .safetensors of points, a .npz, .zip or .tar of images, a folder of IDX files, images or "
    "tars, captions:PATH, prompts:FILE, or toy:NAME";

/// Those from which images are imported, for messages and help.
inline constexpr const char* image_forms =
    "a folder of images, IDX files or tars, or a .zip, .tar or .npz";

/// By a file's extension, in any case, and by its first bytes where that is unknown; `points` is
/// every file that is nothing else. Throws core::Error for common files that are not data (a
/// .tar.gz, a single image).
DataForm form_at(const std::filesystem::path& path);

/// Whether a data set can be expected at a path, by names, first bytes and headers alone: points
/// where a safetensors file has them, images where a .npz or a folder (down to the ten-thousandth
/// entry) does, and any archive. Does not throw.
bool is_data_set(const std::filesystem::path& path);

}  // namespace atelier::data
