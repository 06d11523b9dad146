#include "atelier/data/idx.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>

#include "atelier/core/error.h"
#include "atelier/core/idx_file.h"
#include "atelier/data/labels.h"

namespace atelier::data {

namespace {

std::optional<std::filesystem::path> find_file(const std::filesystem::path& folder,
                                               const std::string& split, const std::string& content,
                                               int dimensions) {
    const std::string prefix = split == "test" ? "t10k" : split;
    for (const char dot : {'-', '.'}) {
        for (const char* ending : {"", ".gz"}) {
            auto path = folder / fmt::format("{}-{}{}idx{}-ubyte{}", prefix, content, dot,
                                             dimensions, ending);
            if (std::filesystem::exists(path)) return path;
        }
    }
    return std::nullopt;
}

std::filesystem::path labels_path(const std::filesystem::path& folder, const std::string& split) {
    if (const auto path = find_file(folder, split, "labels", 1)) return *path;
    core::fail("{}: there are no {} labels ({}-labels-idx1-ubyte or .gz) beside the images",
               folder.string(), split, split == "test" ? "t10k" : split);
}

bool is_called_fashion(const std::filesystem::path& folder) {
    std::string name = std::filesystem::canonical(folder).filename().string();
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return name.find("fashion") != std::string::npos;
}

std::vector<std::string> class_names(const std::filesystem::path& folder, std::int64_t classes) {
    static const std::vector<std::string> fashion{"t-shirt", "trouser",   "pullover", "dress",
                                                  "coat",    "sandal",    "shirt",    "sneaker",
                                                  "bag",     "ankle boot"};
    const bool fits = classes == static_cast<std::int64_t>(fashion.size());
    return fits && is_called_fashion(folder) ? fashion : std::vector<std::string>{};
}

}  // namespace

Tensor read_idx_images(const std::filesystem::path& path) {
    core::IdxFile file(path, core::IdxFile::Content::images);
    Tensor images = at::empty({file.count(), 1, file.rows(), file.columns()}, at::kByte);
    file.read({images.mutable_data_ptr<std::uint8_t>(), static_cast<std::size_t>(images.numel())});
    return images;
}

std::vector<std::int64_t> read_idx_labels(const std::filesystem::path& path) {
    core::IdxFile file(path, core::IdxFile::Content::labels);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(file.count()));
    file.read(bytes);
    return {bytes.begin(), bytes.end()};
}

bool is_idx_folder(const std::filesystem::path& folder) {
    return find_file(folder, "train", "images", 3) || find_file(folder, "test", "images", 3);
}

StoredImages read_idx_folder(const DataRequest& request) {
    const auto images_path = find_file(request.path, request.split, "images", 3);
    if (!images_path) {
        core::fail("{}: holds no IDX images of the {} split; fetch that file too",
                   request.path.string(), request.split);
    }
    const auto own_labels_path = labels_path(request.path, request.split);
    auto labels = read_idx_labels(own_labels_path);
    const auto train_labels_path = labels_path(request.path, "train");
    const std::int64_t classes =
        count_classes(request.split == "train" ? labels : read_idx_labels(train_labels_path),
                      train_labels_path.string());
    check_labels(labels, classes, own_labels_path.string());
    Tensor images = read_idx_images(*images_path);
    if (images.size(0) != static_cast<std::int64_t>(labels.size())) {
        core::fail("{}: holds {} images, {} holds {} labels; they belong to different data sets",
                   images_path->string(), images.size(0), own_labels_path.string(), labels.size());
    }
    data::SampleSpec spec;
    spec.shape = images.sizes().slice(1).vec();
    spec.class_names = class_names(request.path, classes);
    return {std::move(images), std::move(labels), classes, std::move(spec)};
}

}  // namespace atelier::data
