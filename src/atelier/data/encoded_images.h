#pragma once

#include <functional>

#include "atelier/core/image_file.h"
#include "atelier/data/dataset.h"

namespace atelier::data {

/// Images that lie encoded somewhere: in a folder, a zip archive, a tar.
struct EncodedImages {
    std::int64_t count = 0;
    std::function<core::Image(std::int64_t)> read;  // thread-safe; throws core::Error naming file and image
    std::function<std::string(std::int64_t)> name;  // of an image, for messages
    std::vector<std::int64_t> labels;               // `count`, or none
    std::int64_t classes = 0;
    std::vector<std::string> class_names;  // `classes`, or none
    std::string identity;                  // differs where the contents do; used for those that are too many to be hashed
};

/// Calls `work` with 0 to count-1 from several threads; the first error stops them and is thrown.
void in_parallel(std::int64_t count, const std::function<void(std::int64_t)>& work);

/// Sides of images in data sets; longer ones are refused before memory is taken.
inline constexpr std::uint32_t longest_image_side = 4096;

/// Up to `most_in_memory` bytes of pixels are decoded at once, in parallel, and kept; of more, each batch is decoded when it is asked for, in parallel.
/// All images have the size of the first. Grey ones among coloured ones become RGB; where batches are decoded one by one, the first must be
/// coloured then. Throws core::Error naming an image of another size, or when there are none.
std::shared_ptr<const Dataset> open_encoded(EncodedImages images, std::int64_t limit, std::uint64_t most_in_memory = std::uint64_t{1} << 30);

}  // namespace atelier::data
