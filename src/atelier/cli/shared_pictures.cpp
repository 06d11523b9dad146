#include "atelier/cli/shared_pictures.h"

#include <algorithm>
#include <charconv>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/data/sample_spec.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

std::string picture_name(std::int64_t number) { return fmt::format("{:06}.png", number); }

/// The number of a picture's name; nothing for other names.
std::optional<std::int64_t> picture_number(const std::string& name) {
    std::int64_t number = 0;
    std::from_chars(name.data(), name.data() + name.size(), number);
    return name == picture_name(number) ? std::optional(number) : std::nullopt;
}

}  // namespace

SharedPictures::SharedPictures(fs::path folder, std::int64_t count)
    : folder_(folder.has_filename() ? std::move(folder) : folder.parent_path()), count_(count) {
    if (!fs::exists(folder_)) core::check_output_folder(folder_);
    else if (!fs::is_directory(folder_))
        core::fail("{}: is not a folder; --shard writes a folder of PNGs", folder_.string());
    numbers();  // throws on what does not belong there
}

void SharedPictures::reject(const std::string& name, const std::string& why) const {
    throw core::UsageError(fmt::format("{}: {} {}; remove the folder, or name another --out",
                                       folder_.string(), name, why));
}

std::vector<std::int64_t> SharedPictures::numbers() const {
    std::vector<std::int64_t> found;
    if (!fs::exists(folder_)) return found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with('.')) continue;  // what another shard is writing
        const auto number = picture_number(name);
        if (!number || *number >= count_)
            reject(name, fmt::format("is none of the {} pictures of this request", count_));
        found.push_back(*number);
    }
    std::ranges::sort(found);
    return found;
}

void SharedPictures::check_some(const Texts& texts) const {
    constexpr std::size_t most = 8;
    const std::vector<std::int64_t> found = numbers();
    const std::size_t step = std::max<std::size_t>(1, found.size() / most);
    for (std::size_t k = 0; k < found.size(); k += step) {
        const std::int64_t i = found[k];
        const ImageText text = core::read_png_text(folder_ / picture_name(i)), expected = texts(i);
        const auto check = [&](const std::string& key) {
            const auto other = text.find(key);
            if (other != text.end() && other->second == expected.at(key)) return;
            reject(picture_name(i),
                   fmt::format("was made with other options: its {} is {}, not {}", key,
                               other == text.end() ? "missing" : other->second, expected.at(key)));
        };
        check("seed");  // first, since drawn classes follow from it
        for (const auto& [key, value] : expected) check(key);
    }
}

bool SharedPictures::hold(std::span<const std::int64_t> numbers, const Texts& texts) const {
    const bool all = std::ranges::all_of(
        numbers, [&](std::int64_t i) { return fs::exists(folder_ / picture_name(i)); });
    for (const std::int64_t i : numbers) {
        const fs::path path = folder_ / picture_name(i);
        if (fs::exists(path) && core::read_png_text(path) != texts(i))
            reject(picture_name(i), "was made from other weights or with other options");
    }
    return all;
}

void SharedPictures::write(std::span<const std::int64_t> numbers, const Tensor& images,
                           const Texts& texts) const {
    core::add_files_atomically(folder_, [&](const fs::path& temporary) {
        for (std::size_t k = 0; k < numbers.size(); ++k) {
            core::write_png(temporary / picture_name(numbers[k]),
                            data::image_of(images[static_cast<std::int64_t>(k)]),
                            texts(numbers[k]));
        }
    });
}

std::int64_t SharedPictures::there() const { return static_cast<std::int64_t>(numbers().size()); }

}  // namespace atelier::cli
