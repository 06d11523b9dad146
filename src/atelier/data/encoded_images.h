#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "atelier/core/image_file.h"
#include "atelier/data/dataset.h"
#include "atelier/data/memory_dataset.h"
#include "atelier/data/passed_over.h"

namespace atelier::data {

/// Decodes the images of a set and counts the conversions; shared by its readers. Thread-safe.
struct ImageDecoder {
    core::DecodeOptions options;
    std::atomic<std::int64_t> transparent = 0, rotated = 0, cmyk = 0;

    core::Image decode(std::span<const std::byte> file, const std::string& where);
    /// One line per kind of conversion, e.g. "3 images with transparency were put on white"; empty
    /// when there was none.
    std::vector<std::string> notes() const;
};

/// Images that are decoded one at a time, of one or of many sizes.
struct EncodedImages {
    std::int64_t count = 0;
    std::function<core::Image(std::int64_t)>
        read;  // thread-safe; throws core::Error naming file and image
    std::function<void(std::int64_t)>
        check;  // throws what `read` would where the header shows it; may be empty
    std::function<std::string(std::int64_t)> name;  // of an image, for messages
    std::function<std::string(std::int64_t)>
        version;  // of an image's file: differs when the file changes; may be empty
    std::vector<std::int64_t> labels;  // `count`, or none
    std::int64_t classes = 0;
    std::vector<std::string> class_names;  // `classes`, or none
    std::vector<std::string> captions;     // `count`, or none
    std::string identity;  // differs where the contents do; used for sets too large to be hashed
    std::string where;     // the path, for messages
    PassedOver passed_over;
    std::vector<std::string> remarks;  // further notes on the set, one per line
    std::shared_ptr<ImageDecoder> decoder = std::make_shared<ImageDecoder>();
};

/// Images that are in memory as numbers, as if they were encoded. `where` names their file.
EncodedImages encoded(StoredImages images, std::string where);

/// Calls `work` with 0 to count-1 on several threads; the first exception stops them and is
/// rethrown.
void for_each_concurrently(std::int64_t count, const std::function<void(std::int64_t)>& work);

/// Logs a line unless this process has logged it before: a run opens its data more than once.
void log_once(const std::string& line, bool as_warning);

/// Logs what of a set is passed over, and its remarks.
void log_passed_over(const EncodedImages& images);

/// Largest side of images in data sets; larger ones are rejected before memory is allocated.
inline constexpr std::uint32_t longest_image_side = 4096;

/// Up to `most_in_memory` bytes of pixels are decoded immediately, in parallel, and kept; of larger
/// sets, each batch is decoded on request, in parallel. All images must have the size of the first.
/// Grey images among coloured ones become RGB; where batches are decoded on request, 512 evenly
/// spread images decide that. Where there are captions, each image is labelled with its own. Throws
/// core::Error naming an image of another size, or when there are none.
std::shared_ptr<const Dataset> open_encoded(EncodedImages images, std::int64_t limit,
                                            std::uint64_t most_in_memory = std::uint64_t{1} << 30);

}  // namespace atelier::data
