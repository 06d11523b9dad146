#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/data/file_listing.h"

namespace atelier::data {

/// The endings of images' names, for messages.
inline constexpr const char* image_endings = ".png, .jpg, .jpeg or .webp";

/// Whether a file's name ends as an image's that is read, in small or capital letters.
bool is_image_name(std::string_view name);

/// Which files of a listing are the images of a split, and in which folders they lie.
class ImageLayout {
public:
    /// `where` begins messages; `wanted` is "train" or "test". Throws core::Error when there are no
    /// images, saying what lies there instead.
    ImageLayout(const FileListing& listing, std::string where, const std::string& wanted);

    std::vector<std::size_t> images;    // places in the listing's files
    std::vector<std::size_t> others;    // neither images nor hidden, of all splits
    std::vector<std::size_t> of_train;  // images of the training split, where there are splits
    std::string train, split;           // prefixes of names, "" or ending with '/'
    std::set<std::string> other_split;  // prefixes of what belongs to the split that is not read
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
    /// Shards of one set, not classes: tars that each hold folders of their own, or numbers as
    /// EDM's tool gives them.
    bool folders_are_shards() const;

private:
    const std::string& name(std::size_t file) const { return listing_.files()[file].name; }
    std::int64_t part(std::size_t file) const { return listing_.files()[file].part; }
    [[noreturn]] void fail_without_images();
    /// Folders that all images lie in. A folder's last one is kept, since it is a class; in an
    /// archive it only says what was packed.
    std::string common_root() const;
    void choose_split();

    const FileListing& listing_;
    std::string where_, wanted_;
};

}  // namespace atelier::data
