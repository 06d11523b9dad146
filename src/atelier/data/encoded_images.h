#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "atelier/core/image_file.h"
#include "atelier/data/dataset.h"
#include "atelier/data/passed_over.h"

namespace atelier::data {

/// How a set's images are decoded, and how many needed what; shared by its readers.
struct ImageReading {
    core::Decoding how;
    std::atomic<std::int64_t> transparent = 0, turned = 0, four_colours = 0;

    core::Image decode(std::span<const std::byte> file, const std::string& where);
    /// "3 images with transparency were put on white", and so on; empty when nothing was done.
    std::vector<std::string> words() const;
};

/// Images that lie encoded somewhere: in a folder, a zip archive, a tar.
struct EncodedImages {
    std::int64_t count = 0;
    std::function<core::Image(std::int64_t)>
        read;  // thread-safe; throws core::Error naming file and image
    std::function<void(std::int64_t)>
        check;  // throws what `read` would, as far as the header shows it; may be empty
    std::function<std::string(std::int64_t)> name;  // of an image, for messages
    std::function<std::string(std::int64_t)>
        version;  // of an image's file: another one when it changes; may be empty
    std::vector<std::int64_t> labels;  // `count`, or none
    std::int64_t classes = 0;
    std::vector<std::string> class_names;  // `classes`, or none
    std::vector<std::string> captions;     // `count`, or none
    std::string identity;                  // differs where the contents do; used for those that are too many to be hashed
    std::string where;                     // the path, for messages
    PassedOver passed_over;
    std::vector<std::string> remarks;  // what else is to be said of the set, a line each
    std::shared_ptr<ImageReading> reading = std::make_shared<ImageReading>();
};

/// Calls `work` with 0 to count-1 from several threads; the first error stops them and is thrown.
void in_parallel(std::int64_t count, const std::function<void(std::int64_t)>& work);

/// Says a line, if this process has not said it yet: a run opens its data more than once.
void say_once(const std::string& line, bool as_warning);

/// Says what of a set is passed over, and its remarks.
void say_what_is_left_out(const EncodedImages& images);

/// Sides of images in data sets; longer ones are refused before memory is taken.
inline constexpr std::uint32_t longest_image_side = 4096;

/// Up to `most_in_memory` bytes of pixels are decoded at once, in parallel, and kept; of more, each
/// batch is decoded when it is asked for, in parallel. All images have the size of the first. Grey
/// ones among coloured ones become RGB; where batches are decoded one by one, 512 evenly spread
/// images say what there is. Where there are captions, each image is labelled with its own. Throws
/// core::Error naming an image of another size, or when there are none.
std::shared_ptr<const Dataset> open_encoded(EncodedImages images, std::int64_t limit, std::uint64_t most_in_memory = std::uint64_t{1} << 30);

}  // namespace atelier::data
