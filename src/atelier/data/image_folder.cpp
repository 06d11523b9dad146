#include "atelier/data/image_folder.h"

#include <algorithm>
#include <cctype>

#include "atelier/core/error.h"
#include "atelier/core/image_file.h"
#include "atelier/data/encoded_images.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

bool is_image(const fs::directory_entry& entry) { return is_image_name(entry.path().string()) && entry.is_regular_file(); }

bool is_folder(const fs::directory_entry& entry) { return entry.is_directory(); }

/// The entries that are `wanted` and not hidden, sorted by name.
std::vector<fs::path> entries(const fs::path& folder, bool (*wanted)(const fs::directory_entry&)) {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(folder)) {
        if (!entry.path().filename().string().starts_with('.') && wanted(entry)) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    return paths;
}

std::vector<std::string> class_names(const fs::path& folder) {
    std::vector<std::string> names;
    for (const fs::path& path : entries(folder, is_folder)) names.push_back(path.filename().string());
    return names;
}

struct Files {
    std::vector<fs::path> paths;
    std::vector<std::int64_t> labels;  // empty: unlabelled
};

Files unlabelled_files(const fs::path& folder, const std::vector<std::string>& names) {
    for (const std::string& name : names) {
        if (!entries(folder / name, is_image).empty()) {
            core::fail("{}: images lie both in the folder and in \"{}\" below it; either all or none have a class",
                       folder.string(), name);
        }
    }
    return {entries(folder, is_image), {}};
}

/// `names` are the classes; the folder may lack some, but have no others.
Files labelled_files(const fs::path& folder, const std::vector<std::string>& names) {
    Files files;
    for (const std::string& own : class_names(folder)) {
        const auto known = std::lower_bound(names.begin(), names.end(), own);
        if (known == names.end() || *known != own) core::fail("{}: is not a class of the training data", (folder / own).string());
        for (fs::path& path : entries(folder / own, is_image)) {
            files.paths.push_back(std::move(path));
            files.labels.push_back(known - names.begin());
        }
    }
    return files;
}

void expect_every_class(const Files& files, const std::vector<std::string>& names, const fs::path& folder) {
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (!std::binary_search(files.labels.begin(), files.labels.end(), static_cast<std::int64_t>(i))) {
            core::fail("{}: holds no .png, .jpg or .jpeg; fill the class or remove its folder", (folder / names[i]).string());
        }
    }
}

std::string identity_of(const std::vector<fs::path>& paths) {
    std::string identity;
    for (const fs::path& path : paths) identity += fmt::format("{} {}\n", path.filename().string(), fs::file_size(path));
    return identity;
}

}  // namespace

EncodedImages images_in_folder(const DataRequest& request) {
    const bool split = fs::is_directory(request.path / "train") && fs::is_directory(request.path / "test");
    const fs::path train = split ? request.path / "train" : request.path;
    const fs::path folder = split ? request.path / request.split : request.path;
    const std::vector<std::string> names = class_names(train);
    const bool unlabelled = !entries(train, is_image).empty();
    const Files files = unlabelled ? unlabelled_files(folder, names) : labelled_files(folder, names);
    if (files.paths.empty()) {
        core::fail(
            "{}: is no data set; looked for IDX files (train-images-idx3-ubyte, also .gz), .png, .jpg or .jpeg images, and a "
            "sub-folder of images for each class",
            folder.string());
    }
    if (!unlabelled && folder == train) expect_every_class(files, names, folder);
    EncodedImages images;
    images.count = static_cast<std::int64_t>(files.paths.size());
    images.labels = files.labels;
    if (!unlabelled) images.class_names = names;
    images.classes = static_cast<std::int64_t>(images.class_names.size());
    images.identity = identity_of(files.paths);
    images.name = [paths = files.paths](std::int64_t i) { return paths[static_cast<std::size_t>(i)].string(); };
    images.read = [paths = files.paths](std::int64_t i) { return core::read_image(paths[static_cast<std::size_t>(i)]); };
    return images;
}

std::shared_ptr<const Dataset> open_image_folder(const DataRequest& request) { return open_encoded(images_in_folder(request), request.limit); }

bool is_image_name(const std::string& name) {
    std::string ending = fs::path(name).extension().string();
    std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
    return ending == ".png" || ending == ".jpg" || ending == ".jpeg";
}

}  // namespace atelier::data
