#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "atelier/data/file_listing.h"

namespace atelier::data {

/// The texts next to images: NAME.txt, .caption, .json and .cls next to NAME.png, or in tars next
/// to NAME.what.ever.png (WebDataset).
class SidecarTable {
public:
    /// Throws core::Error naming the second image of a sample in a tar.
    SidecarTable(const FileListing& listing, const std::vector<std::size_t>& images,
                 const std::vector<std::size_t>& others);

    /// The file next to an image with the given extension, in lower case.
    std::optional<std::size_t> beside(std::size_t image, std::string_view ending) const;

    /// A key that is unique per archive, stem and extension.
    static std::string key_of(std::int64_t archive, std::string_view stem, std::string_view ending);

private:
    const std::string& name(std::size_t file) const { return listing_.files()[file].name; }
    std::int64_t archive(std::size_t file) const { return listing_.files()[file].archive; }

    const FileListing& listing_;
    std::unordered_map<std::string, std::size_t> sidecars_, by_key_;
    std::unordered_map<std::string, std::int64_t> images_of_key_;
};

}  // namespace atelier::data
