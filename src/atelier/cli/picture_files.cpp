#include "atelier/cli/picture_files.h"

#include <filesystem>

#include <fmt/format.h>

#include "atelier/core/atomic_file.h"
#include "atelier/core/image_file.h"
#include "atelier/core/npz.h"
#include "atelier/models/data_form.h"

namespace atelier::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t grid_columns = 8;

void write_grid(const std::string& out, const Tensor& pictures, const PictureTexts& texts) {
    const std::int64_t count = pictures.size(0);
    if (count == 1) return core::write_png(out, models::image_of(pictures[0]), texts("0"));
    core::write_png(out, core::grid(models::images_of(pictures), static_cast<int>(std::min(grid_columns, count))), texts(fmt::format("0-{}", count - 1)));
}

}  // namespace

void write_pictures(const std::string& out, const Tensor& pictures, const PictureTexts& texts) {
    const std::string ending = fs::path(out).extension().string();
    if (ending == ".png") return write_grid(out, pictures, texts);
    if (ending == ".npz") {
        return core::write_npz(out, {{"arr_0", core::DType::U8, pictures.sizes().vec(), {static_cast<const std::byte*>(pictures.const_data_ptr()), pictures.nbytes()}}});
    }
    core::create_directory_atomically(out, [&](const fs::path& folder) {
        for (std::int64_t i = 0; i < pictures.size(0); ++i) {
            core::write_png(folder / fmt::format("{:06}.png", i), models::image_of(pictures[i]), texts(std::to_string(i)));
        }
    });
}

}  // namespace atelier::cli
