#include <algorithm>
#include <cmath>

#include "atelier/api/guard.h"
#include "atelier/core/image_file.h"

namespace atelier {

namespace {

constexpr std::int64_t longest_side = 1 << 24;

core::Image core_image(const Image& image) {
    if (image.height < 1 || image.width < 1 || image.height > longest_side ||
        image.width > longest_side)
        throw core::UsageError(
            fmt::format("an image of {} x {} pixels cannot be written", image.width, image.height));
    return {static_cast<int>(image.height), static_cast<int>(image.width),
            static_cast<int>(image.channels), image.pixels};
}

}  // namespace

Image Samples::image(std::int64_t i) const {
    const std::int64_t size = height * width * channels;
    if (i < 0 || i >= count || size <= 0 ||
        static_cast<std::int64_t>(pixels.size()) != count * size)
        throw Error(Error::Kind::usage, fmt::format("there is no image {}; these are {} {}", i,
                                                    count, dimensions > 0 ? "points" : "images"));
    return {height, width, channels, {pixels.begin() + i * size, pixels.begin() + (i + 1) * size}};
}

void write_png(const std::filesystem::path& path, const Image& image) {
    api::guarded([&] { core::write_png(path, core_image(image)); });
}

void write_png(const std::filesystem::path& path, const Samples& samples, std::int64_t columns) {
    api::guarded([&] {
        if (samples.count < 1)
            throw core::UsageError(path.string() + ": there are no images to write");
        std::vector<core::Image> images;
        for (std::int64_t i = 0; i < samples.count; ++i)
            images.push_back(core_image(samples.image(i)));
        if (columns <= 0)
            columns =
                static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(samples.count))));
        core::write_png(path,
                        core::grid(images, static_cast<int>(std::min(columns, samples.count))));
    });
}

}  // namespace atelier
