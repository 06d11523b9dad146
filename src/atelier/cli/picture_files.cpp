#include "atelier/cli/picture_files.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <fmt/format.h>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/npz.h"
#include "atelier/models/data_form.h"

namespace atelier::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t usual_columns = 8, small_grid = 100, gap = 2;
constexpr int jpeg_quality = 95, lossless = 100;
constexpr const char* written_forms = "written are .png, .jpg, .webp, .npz, or a folder of PNGs (a name without ending, or with / behind it)";

std::int64_t longest_side(PictureForm form) {
    if (form == PictureForm::jpeg) return 65'500;
    return form == PictureForm::webp ? 16'383 : 1'000'000;
}

void write_grid(const std::string& out, PictureForm form, const Tensor& pictures, const PictureTexts& texts, const std::optional<std::int64_t>& columns) {
    const std::int64_t count = pictures.size(0);
    if (count == 1) return write_picture(out, form, models::image_of(pictures[0]), texts("0"));
    const std::int64_t across = grid_columns(form, count, pictures.size(1), pictures.size(2), columns, usual_columns);
    write_picture(out, form, core::grid(models::images_of(pictures), static_cast<int>(across)), texts(fmt::format("0-{}", count - 1)));
}

}  // namespace

PictureForm picture_form(const std::string& out) {
    static const std::map<std::string, PictureForm> forms{{".png", PictureForm::png}, {".jpg", PictureForm::jpeg}, {".jpeg", PictureForm::jpeg}, {".webp", PictureForm::webp}, {".npz", PictureForm::npz}};
    if (out.ends_with('/')) return PictureForm::folder;
    const std::string ending = core::lower_case(fs::path(out).extension().string());
    if (const auto found = forms.find(ending); found != forms.end()) return found->second;
    if (core::is_stream(out)) return PictureForm::png;
    // "samples-0.5" is a name; "samples.gif" is a wish.
    const bool is_ending = ending.size() > 1 && !(ending[1] >= '0' && ending[1] <= '9');
    if (is_ending) throw core::UsageError(fmt::format("--out: {}: {} is not written; {}", out, ending, written_forms));
    return PictureForm::folder;
}

void check_picture_output(const std::string& out, PictureForm form) {
    if (form == PictureForm::folder) core::check_output_folder(out);
    else core::check_output_file(out);
}

std::int64_t grid_columns(PictureForm form, std::int64_t count, std::int64_t height, std::int64_t width, const std::optional<std::int64_t>& wanted, std::int64_t usual) {
    std::int64_t columns = std::min(count, usual);
    if (wanted) columns = std::min(count, *wanted);
    else if (count > small_grid) columns = std::max(usual, static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(count * (height + gap)) / static_cast<double>(width + gap)))));
    const std::int64_t rows = (count + columns - 1) / columns, across = columns * (width + gap) - gap, down = rows * (height + gap) - gap, most = longest_side(form);
    if (across > most || down > most) {
        throw core::UsageError(fmt::format("--out: a grid of {} images would have {} x {} pixels, and {} are the most a side; write a folder, .npz, or fewer images", count, across, down, most));
    }
    return columns;
}

void write_picture(const std::string& out, PictureForm form, const core::Image& image, const std::map<std::string, std::string>& text) {
    if (form == PictureForm::png) return core::write_png(out, image, text);
    const auto bytes = form == PictureForm::jpeg ? core::encode_jpeg(image, jpeg_quality) : core::encode_webp(image, lossless);
    core::AtomicFile file(out);
    file.write(std::as_bytes(std::span(bytes)));
    file.commit();
}

void write_pictures(const std::string& out, const Tensor& pictures, const PictureTexts& texts, const std::optional<std::int64_t>& columns) {
    const PictureForm form = picture_form(out);
    if (form == PictureForm::npz) {
        return core::write_npz(out, {{"arr_0", core::DType::U8, pictures.sizes().vec(), {static_cast<const std::byte*>(pictures.const_data_ptr()), pictures.nbytes()}}});
    }
    if (form != PictureForm::folder) return write_grid(out, form, pictures, texts, columns);
    core::create_directory_atomically(out, [&](const fs::path& folder) {
        for (std::int64_t i = 0; i < pictures.size(0); ++i) {
            core::write_png(folder / fmt::format("{:06}.png", i), models::image_of(pictures[i]), texts(std::to_string(i)));
        }
    });
}

}  // namespace atelier::cli
