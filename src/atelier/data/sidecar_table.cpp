#include "atelier/data/sidecar_table.h"

#include <set>

#include "atelier/core/error.h"

namespace atelier::data {

namespace {

/// The name without its extension, and for WebDataset without everything after its first dot.
std::string_view stem_part(std::string_view name) {
    return name.substr(0, folder_part(name).size() + last_part(name).rfind('.'));
}
std::string_view key_part(std::string_view name) {
    return name.substr(0, name.find('.', folder_part(name).size()));
}

}  // namespace

SidecarTable::SidecarTable(const FileListing& listing, const std::vector<std::size_t>& images,
                           const std::vector<std::size_t>& others)
    : listing_(listing) {
    for (const std::size_t i : others) {
        const std::string ending = ending_of(name(i));
        if (ending != ".txt" && ending != ".caption" && ending != ".json" && ending != ".cls")
            continue;
        sidecars_.emplace(key_of(archive(i), stem_part(name(i)), ending), i);
        if (listing_.kind() == FileListing::Kind::tars)
            by_key_.emplace(key_of(archive(i), key_part(name(i)), ending), i);
    }
    if (listing_.kind() != FileListing::Kind::tars) return;
    std::set<std::string> stems;
    for (const std::size_t i : images) {
        ++images_of_key_[key_of(archive(i), key_part(name(i)), "")];
        if (!stems.insert(key_of(archive(i), stem_part(name(i)), "")).second)
            core::fail("{}: is the second image of its sample", listing_.where(i));
    }
}

std::optional<std::size_t> SidecarTable::beside(std::size_t image, std::string_view ending) const {
    if (sidecars_.empty()) return std::nullopt;
    if (const auto found = sidecars_.find(key_of(archive(image), stem_part(name(image)), ending));
        found != sidecars_.end())
        return found->second;
    if (by_key_.empty()) return std::nullopt;
    const auto found = by_key_.find(key_of(archive(image), key_part(name(image)), ending));
    if (found == by_key_.end()) return std::nullopt;
    if (images_of_key_.at(key_of(archive(image), key_part(name(image)), "")) > 1)
        core::fail("{}: is the second image of its sample", listing_.where(image));
    return found->second;
}

std::string SidecarTable::key_of(std::int64_t archive, std::string_view stem,
                                 std::string_view ending) {
    return fmt::format("{}/{}{}", archive, stem, ending);
}

}  // namespace atelier::data
