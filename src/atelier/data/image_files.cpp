#include "atelier/data/image_files.h"

#include <array>
#include <string_view>

#include "atelier/core/error.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/regular_file.h"
#include "atelier/data/arrange_images.h"
#include "atelier/data/idx.h"
#include "atelier/data/image_folder.h"
#include "atelier/data/image_layout.h"
#include "atelier/data/image_tar.h"
#include "atelier/data/image_zip.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

enum class Container { folder, tars, zip, npz, other };

/// The first bytes of a file, as many as a tar header has.
std::string first_bytes(const fs::path& path) {
    std::array<char, 512> bytes{};
    core::RegularFile file(path);
    return {bytes.data(), file.read(std::as_writable_bytes(std::span(bytes)))};
}

Container container_at(const fs::path& path) {
    if (fs::is_directory(path)) return is_tar_folder(path) ? Container::tars : Container::folder;
    const std::string ending = core::lower_case(path.extension().string());
    if (ending == ".zip") return Container::zip;
    if (ending == ".tar") return Container::tars;
    if (ending == ".npz") return Container::npz;
    if (ending == ".safetensors") return Container::other;
    const std::string begin = first_bytes(path);
    if (begin.starts_with("PK\3\4") || begin.starts_with("PK\5\6")) return Container::zip;
    return begin.size() == 512 && begin.substr(257, 5) == "ustar" ? Container::tars
                                                                  : Container::other;
}

/// Throws core::Error for common files that are not data.
void expect_readable(const fs::path& path) {
    if (core::lower_case(path.extension().string()) == ".safetensors") return;
    const std::string begin = first_bytes(path);
    if (begin.starts_with("\x1f\x8b") ||
        begin.starts_with("\xfd"
                          "7zXZ") ||
        begin.starts_with("\x28\xb5\x2f\xfd") || begin.starts_with("BZh") ||
        begin.starts_with("7z\xbc\xaf")) {
        core::fail("{}: is compressed; unpack it and give the folder, or the .tar in it",
                   path.string());
    }
    if (is_image_name(path.filename().string()))
        core::fail("{}: is a single image; give the folder that it lies in", path.string());
}

}  // namespace

DataFiles detect_data_files(const fs::path& path) {
    if (!fs::exists(path)) return DataFiles::nothing;
    switch (container_at(path)) {
        case Container::npz:
            return DataFiles::npz;
        case Container::other:
            expect_readable(path);
            return DataFiles::points;
        case Container::folder:
            return is_idx_folder(path) ? DataFiles::idx : DataFiles::images;
        default:
            return DataFiles::images;
    }
}

EncodedImages images_in(const DataRequest& given) {
    DataRequest request = given;
    constexpr std::string_view captions = "captions:";
    if (request.path.string().starts_with(captions)) {
        request.path = request.path.string().substr(captions.size());
        request.captions = Captions::required;
    }
    const fs::path& path = request.path;
    try {
        if (!fs::exists(path))
            core::fail(
                "{}: there is no such file or folder; images are imported from a folder, a .zip or "
                ".tar",
                path.string());
        switch (container_at(path)) {
            case Container::folder:
                return arrange_images(files_of_folder(path), request);
            case Container::tars:
                return arrange_images(files_of_tars(path), request);
            case Container::zip:
                return arrange_images(files_of_zip(path), request);
            default:
                expect_readable(path);
                core::fail("{}: is neither a folder nor a .zip or .tar of images", path.string());
        }
    } catch (const fs::filesystem_error& problem) {
        core::fail("{}: cannot be read ({}); check the permissions", problem.path1().string(),
                   problem.code().message());
    }
}

}  // namespace atelier::data
