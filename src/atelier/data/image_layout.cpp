#include "atelier/data/image_layout.h"

#include <algorithm>
#include <array>
#include <map>

#include "atelier/core/error.h"

namespace atelier::data {

namespace {

constexpr std::array held_out_names{"test", "val", "validation", "valid"};

std::string_view first_part(std::string_view name) { return name.substr(0, name.find('/')); }

/// Whether a name is of the form that NVlabs/edm's tool writes: "00000/img00000000.png".
bool is_numbered_by_edm(std::string_view name) {
    const auto digits = [](std::string_view text) {
        return std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
    };
    return name.size() > 17 && digits(name.substr(0, 5)) && name.substr(5, 4) == "/img" &&
           digits(name.substr(9, 8)) && name[17] == '.';
}

}  // namespace

bool is_image_name(std::string_view name) {
    const std::string ending = ending_of(name);
    return ending == ".png" || ending == ".jpg" || ending == ".jpeg" || ending == ".jpe" ||
           ending == ".jfif" || ending == ".webp";
}

ImageLayout::ImageLayout(const FileListing& listing, std::string where,
                         const std::string& requested_split)
    : listing_(listing), where_(std::move(where)), requested_split_(requested_split) {
    passed_over.add(listing_.passed_over());
    for (std::size_t i = 0; i < listing_.files().size(); ++i) {
        if (is_hidden_name(name(i))) passed_over.hidden(name(i));
        else (is_image_name(name(i)) ? images : others).push_back(i);
    }
    if (images.empty()) fail_without_images();
    choose_split();
}

void ImageLayout::fail_without_images() {
    for (const std::size_t i : others) passed_over.file(name(i));
    const std::string left = passed_over.count() > 0 ? "; " + passed_over.summary() : "";
    if (!is_folder()) core::fail("{}: holds no {}{}", where_, image_endings, left);
    core::fail(
        "{}: is not a data set; looked for IDX files (train-images-idx3-ubyte, also .gz), {} "
        "images, "
        "and a sub-folder of images for each class{}",
        where_, image_endings, left);
}

std::set<std::string> ImageLayout::folders_below(const std::string& prefix) const {
    std::set<std::string> found;
    const auto add = [&](std::string_view path, bool folder) {
        if (!path.starts_with(prefix)) return;
        path.remove_prefix(prefix.size());
        if (!path.empty() && (folder || path.find('/') != path.npos))
            found.emplace(first_part(path));
    };
    for (const std::size_t i : images) add(name(i), false);
    for (const std::string& folder : listing_.folders()) {
        if (!is_hidden_name(folder)) add(folder, true);
    }
    return found;
}

bool ImageLayout::lies_directly_in(std::size_t file, const std::string& prefix) const {
    return name(file).starts_with(prefix) &&
           name(file).find('/', prefix.size()) == std::string::npos;
}

std::string ImageLayout::common_root() const {
    std::string root;
    while (true) {
        const std::set<std::string> below = folders_below(root);
        const bool loose =
            std::ranges::any_of(images, [&](std::size_t i) { return lies_directly_in(i, root); });
        if (loose || below.size() != 1) return root;
        std::string deeper = root + *below.begin() + "/";
        if (is_folder() &&
            std::ranges::any_of(images, [&](std::size_t i) { return lies_directly_in(i, deeper); }))
            return root;
        root = std::move(deeper);
    }
}

void ImageLayout::choose_split() {
    train = split = common_root();
    const std::set<std::string> below = folders_below(train);
    const auto held_out = std::ranges::find_if(
        held_out_names, [&](const char* name) { return below.contains(name); });
    if (!below.contains("train") || held_out == held_out_names.end()) return;
    const std::string root = train, test = root + *held_out + "/";
    train = root + "train/";
    split = requested_split_ == "test" ? test : train;
    std::vector<std::size_t> chosen, elsewhere;
    for (const std::size_t i : images) {
        if (name(i).starts_with(train)) of_train.push_back(i);
        if (name(i).starts_with(split)) chosen.push_back(i);
        else if (!name(i).starts_with(train) && !name(i).starts_with(test))
            passed_over.add("image beside the splits", "images beside the splits", name(i));
        else elsewhere.push_back(i);
    }
    for (const std::size_t i : elsewhere)
        other_split.insert(name(i).substr(
            0, root.size() + first_part(std::string_view(name(i)).substr(root.size())).size() + 1));
    if (chosen.empty())
        core::fail("{}: its {} split, {}, holds no {}", where_, requested_split_, split,
                   image_endings);
    if (!elsewhere.empty()) {
        remarks.push_back(fmt::format("{} is read, {} images; {} in {} are the {} split", split,
                                      chosen.size(), elsewhere.size(), *other_split.begin(),
                                      requested_split_ == "test" ? "training" : "held-out"));
    }
    images = std::move(chosen);
    splits = true;
}

bool ImageLayout::in_other_split(std::string_view name) const {
    return std::ranges::any_of(other_split,
                               [&](const std::string& prefix) { return name.starts_with(prefix); });
}

bool ImageLayout::has_class_folders() const {
    return std::ranges::none_of(images, [&](std::size_t i) { return lies_directly_in(i, split); });
}

std::string ImageLayout::class_folder(std::size_t image, const std::string& prefix) const {
    return std::string(first_part(std::string_view(name(image)).substr(prefix.size())));
}

bool ImageLayout::folders_are_shards() const {
    if (std::ranges::all_of(images, [&](std::size_t i) {
            return is_numbered_by_edm(std::string_view(name(i)).substr(split.size()));
        }))
        return true;
    std::map<std::string, std::int64_t> archive_of;
    bool several = false, shared = false;
    for (const std::size_t i : images) {
        several |= archive(i) != archive(images.front());
        const auto [shard, is_new] = archive_of.emplace(class_folder(i, split), archive(i));
        shared |= !is_new && shard->second != archive(i);
    }
    return several && !shared;
}

}  // namespace atelier::data
