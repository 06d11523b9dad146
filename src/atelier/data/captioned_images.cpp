#include "atelier/data/captioned_images.h"

#include <algorithm>
#include <array>

#include "atelier/core/error.h"
#include "atelier/data/idx.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view scheme = "captions:";

/// The attribute in "ATTRIBUTE:FOLDER", of those that images composed by earlier versions had.
std::string former_attribute(const std::string& path) {
    const std::string first = path.substr(0, path.find(':'));
    constexpr std::array<std::string_view, 4> known{"garment", "amount", "place", "colour"};
    const bool names_one = first.size() < path.size() && std::ranges::count(known, first) > 0;
    return names_one && !fs::exists(path) ? first : "";
}

}  // namespace

bool is_captioned(const fs::path& path) { return path.string().starts_with(scheme); }

DataRequest captions_request(const DataRequest& request) {
    const std::string path = request.path.string().substr(scheme.size());
    const std::string attribute = former_attribute(path);
    if (!attribute.empty() || (fs::is_directory(path) && is_idx_folder(path)))
        throw core::UsageError(fmt::format(
            "{}: captioned garments are no longer composed by the program; make them with: python3 "
            "examples/garments/compose.py data/garments{}, and name data/garments/{}",
            request.path.string(), attribute.empty() ? "" : " --classes",
            attribute.empty() ? "images.zip" : "classes/" + attribute + ".zip"));
    DataRequest captioned = request;
    captioned.path = path;
    captioned.captions = Captions::required;
    return captioned;
}

}  // namespace atelier::data
