#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/data/file_listing.h"

namespace atelier::data {

/// The file extensions of images, for messages.
inline constexpr const char* image_endings = ".png, .jpg, .jpeg or .webp";

/// Whether a file name has the extension of a supported image, in any case.
bool is_image_name(std::string_view name);

/// Which files of a listing are the images of a split, and in which folders.
class ImageLayout {
public:
    /// `where` begins messages; `requested_split` is "train" or "test". Throws core::Error when
    /// there are no images, saying what is there instead.
    ImageLayout(const FileListing& listing, std::string where, const std::string& requested_split);

    std::vector<std::size_t> images;    // indices into the listing's files
    std::vector<std::size_t> others;    // other files that are not hidden, of all splits
    std::vector<std::size_t> of_train;  // images of the training split, where there are splits
    std::string train, split;           // prefixes of names, "" or ending with '/'
    std::set<std::string> other_split;  // prefixes of files of the other split
    bool splits = false;
    PassedOver passed_over;
    std::vector<std::string> remarks;

    bool is_folder() const { return listing_.kind() == FileListing::Kind::folder; }
    bool in_other_split(std::string_view name) const;
    /// The names of the folders directly below `prefix`, of images and, in a folder, empty ones.
    std::set<std::string> folders_below(const std::string& prefix) const;
    bool lies_directly_in(std::size_t file, const std::string& prefix) const;
    /// Whether no image lies directly in the split.
    bool has_class_folders() const;
    std::string class_folder(std::size_t image, const std::string& prefix) const;
    /// Whether folders are shards of one set, not classes: tars with folders of their own, or
    /// folders named like those of EDM's tool.
    bool folders_are_shards() const;

private:
    const std::string& name(std::size_t file) const { return listing_.files()[file].name; }
    std::int64_t archive(std::size_t file) const { return listing_.files()[file].archive; }
    [[noreturn]] void fail_without_images();
    /// The folders that contain all images. The last one of a folder is kept, since it is a class;
    /// in an archive it is only the name of what was packed.
    std::string common_root() const;
    void choose_split();

    const FileListing& listing_;
    std::string where_, requested_split_;
};

}  // namespace atelier::data
