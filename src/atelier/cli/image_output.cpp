#include "atelier/cli/image_output.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/npz.h"
#include "atelier/data/sample_spec.h"

namespace atelier::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t small_grid = 100, gap = 2;
constexpr int jpeg_quality = 95, lossless = 100;
constexpr const char* supported_formats =
    "supported are .png, .jpg, .webp, .npz, or a folder of PNGs (a name without extension, or "
    "ending "
    "in /)";

std::int64_t longest_side(ImageFormat format) {
    if (format == ImageFormat::jpeg) return 65'500;
    return format == ImageFormat::webp ? 16'383 : 1'000'000;
}

void write_grid(const std::string& out, ImageFormat format, const Tensor& images,
                const SampleOutput& output) {
    const std::int64_t count = images.size(0);
    if (count == 1) return write_image(out, format, data::image_of(images[0]), output.texts(0));
    const std::int64_t across = grid_columns(format, count, images.size(1), images.size(2),
                                             output.columns, output.default_columns);
    write_image(out, format, core::grid(data::images_of(images), static_cast<int>(across)),
                output.grid_text());
}

std::span<const std::byte> bytes_of(const Tensor& tensor) {
    return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

void write_arrays(const std::string& out, const Tensor& samples,
                  const std::vector<std::int64_t>& labels) {
    const core::DType type =
        samples.scalar_type() == at::kByte ? core::DType::U8 : core::DType::F32;
    const Tensor label_tensor = at::tensor(labels, at::kLong);
    std::vector<core::TensorBytes> arrays{
        {"arr_0", type, samples.sizes().vec(), bytes_of(samples)}};
    if (!labels.empty())
        arrays.push_back(
            {"labels", core::DType::I64, label_tensor.sizes().vec(), bytes_of(label_tensor)});
    core::write_npz(out, arrays);
}

}  // namespace

ImageFormat image_format(const std::string& out) {
    static const std::map<std::string, ImageFormat> formats{
        {".png", ImageFormat::png},   {".jpg", ImageFormat::jpeg}, {".jpeg", ImageFormat::jpeg},
        {".webp", ImageFormat::webp}, {".npz", ImageFormat::npz},
    };
    if (out.ends_with('/')) return ImageFormat::folder;
    const std::string extension = core::lower_case(fs::path(out).extension().string());
    if (const auto found = formats.find(extension); found != formats.end()) return found->second;
    if (core::is_stream(out)) return ImageFormat::png;
    // "samples-0.5" is a folder name; "samples.gif" has an unsupported extension.
    const bool is_extension = extension.size() > 1 && !(extension[1] >= '0' && extension[1] <= '9');
    if (is_extension)
        throw core::UsageError(
            fmt::format("--out: {}: {} is not written; {}", out, extension, supported_formats));
    return ImageFormat::folder;
}

void check_image_output(const std::string& out, ImageFormat format) {
    if (format == ImageFormat::folder) core::check_output_folder(out);
    else core::check_output_file(out);
}

std::int64_t grid_columns(ImageFormat format, std::int64_t count, std::int64_t height,
                          std::int64_t width, const std::optional<std::int64_t>& requested,
                          std::int64_t default_columns) {
    std::int64_t columns = std::min(count, default_columns);
    if (requested) columns = std::min(count, *requested);
    else if (count > small_grid)
        columns = std::max(
            default_columns,
            static_cast<std::int64_t>(std::ceil(std::sqrt(
                static_cast<double>(count * (height + gap)) / static_cast<double>(width + gap)))));
    const std::int64_t rows = (count + columns - 1) / columns,
                       across = columns * (width + gap) - gap, down = rows * (height + gap) - gap,
                       longest = longest_side(format);
    if (across > longest || down > longest) {
        throw core::UsageError(fmt::format(
            "--out: a grid of {} images would have {} x {} pixels, at most {} per side are "
            "supported; write a folder, .npz, or fewer images",
            count, across, down, longest));
    }
    return columns;
}

void write_image(const std::string& out, ImageFormat format, const core::Image& image,
                 const std::map<std::string, std::string>& text) {
    if (format == ImageFormat::png) return core::write_png(out, image, text);
    const auto bytes = format == ImageFormat::jpeg ? core::encode_jpeg(image, jpeg_quality)
                                                   : core::encode_webp(image, lossless);
    core::AtomicFile file(out);
    file.write(std::as_bytes(std::span(bytes)));
    file.commit();
}

void write_samples(const std::string& out, const Tensor& samples, const SampleOutput& output) {
    const ImageFormat format = image_format(out);
    if (format == ImageFormat::npz) return write_arrays(out, samples, output.labels);
    if (format != ImageFormat::folder) return write_grid(out, format, samples, output);
    core::create_directory_atomically(out, [&](const fs::path& folder) {
        for (std::int64_t i = 0; i < samples.size(0); ++i) {
            core::write_png(folder / fmt::format("{:06}.png", i), data::image_of(samples[i]),
                            output.texts(i));
        }
    });
}

}  // namespace atelier::cli
