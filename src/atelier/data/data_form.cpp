#include "atelier/data/data_form.h"

#include <algorithm>
#include <array>
#include <string>

#include "atelier/core/compression.h"
#include "atelier/core/error.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/regular_file.h"
#include "atelier/core/safetensors.h"
#include "atelier/data/idx.h"
#include "atelier/data/image_layout.h"
#include "atelier/data/image_npz.h"
#include "atelier/data/image_tar.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

/// The first bytes of a file, as many as a tar header has.
std::string first_bytes(const fs::path& path) {
    std::array<char, 512> bytes{};
    core::RegularFile file(path);
    return {bytes.data(), file.read(std::as_writable_bytes(std::span(bytes)))};
}

/// Throws core::Error for common files that are not data.
void expect_readable(const fs::path& path, const std::string& begin) {
    if (const auto compression = core::compression_of(begin); !compression.empty())
        core::fail(
            "{}: is compressed ({}); unpack it, e.g. with: {}, and give the folder, or the .tar "
            "in it",
            path.string(), compression, core::how_to_unpack(compression, path.string()));
    if (is_image_name(path.filename().string()))
        core::fail("{}: is a single image; give the folder that it lies in", path.string());
}

DataForm form_of_folder(const fs::path& path) {
    if (is_tar_folder(path)) return DataForm::tars;
    return is_idx_folder(path) ? DataForm::idx_folder : DataForm::folder;
}

DataForm form_of_file(const fs::path& path) {
    const std::string ending = core::lower_case(path.extension().string());
    if (ending == ".zip") return DataForm::zip;
    if (ending == ".tar") return DataForm::tars;
    if (ending == ".npz") return DataForm::npz;
    if (ending == ".safetensors") return DataForm::points;
    const std::string begin = first_bytes(path);
    if (begin.starts_with("PK\3\4") || begin.starts_with("PK\5\6")) return DataForm::zip;
    if (begin.size() == 512 && begin.substr(257, 5) == "ustar") return DataForm::tars;
    expect_readable(path, begin);
    return DataForm::points;
}

bool folder_holds_images(const fs::path& folder) {
    constexpr int looked_at = 10'000;
    int seen = 0;
    for (const auto& entry : fs::recursive_directory_iterator(
             folder, fs::directory_options::skip_permission_denied |
                         fs::directory_options::follow_directory_symlink)) {
        const std::string name = entry.path().lexically_relative(folder).string();
        if (!is_hidden_name(name) && is_image_name(name) && entry.is_regular_file()) return true;
        if (++seen == looked_at) return false;
    }
    return false;
}

}  // namespace

DataForm form_at(const fs::path& path) {
    if (!fs::exists(path)) return DataForm::nothing;
    return fs::is_directory(path) ? form_of_folder(path) : form_of_file(path);
}

bool is_data_set(const fs::path& path) {
    try {
        switch (form_at(path)) {
            case DataForm::nothing:
                return false;
            case DataForm::points:
                return core::SafetensorsFile(path).contains("points");
            case DataForm::npz:
                return is_image_npz(path);
            case DataForm::folder:
                return folder_holds_images(path);
            case DataForm::idx_folder:
            case DataForm::tars:
            case DataForm::zip:
                return true;
        }
    } catch (const core::Error&) {  // opening it says why
    } catch (const fs::filesystem_error&) {
    }
    return false;
}

}  // namespace atelier::data
