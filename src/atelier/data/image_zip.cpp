#include "atelier/data/image_zip.h"

#include <algorithm>
#include <unordered_map>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/zip_file.h"
#include "atelier/data/encoded_images.h"
#include "atelier/data/image_folder.h"
#include "atelier/data/labels.h"

namespace atelier::data {

namespace {

using Entries = std::vector<const core::ZipFile::Entry*>;

constexpr std::uint64_t largest_labels = std::uint64_t{256} << 20, largest_image = std::uint64_t{64} << 20;

Entries images_of(const core::ZipFile& zip) {
    Entries images;
    for (const auto& entry : zip.entries()) {
        if (is_image_name(entry.name)) images.push_back(&entry);
    }
    std::ranges::sort(images, {}, [](const auto* entry) -> const std::string& { return entry->name; });
    return images;
}

/// [name, class] of dataset.json.
std::pair<std::string, std::int64_t> label_of(const nlohmann::json& pair, const std::string& where) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_number_integer()) {
        core::fail("{}: a label is {}; expected [\"name of an image\", class]", where, pair.dump().substr(0, 100));
    }
    return {pair[0].get<std::string>(), pair[1].get<std::int64_t>()};
}

struct Labelling {
    std::vector<std::int64_t> labels;
    std::vector<std::string> class_names;  // none, or one a class
};

std::vector<std::string> names_in(const nlohmann::json& json, const std::string& where) {
    if (!json.contains("class_names")) return {};
    std::vector<std::string> names;
    if (!json["class_names"].is_array()) core::fail("{}: \"class_names\" must be a list", where);
    for (const auto& name : json["class_names"]) {
        if (!name.is_string()) core::fail("{}: a name of a class is {}; expected a string", where, name.dump().substr(0, 100));
        names.push_back(name.get<std::string>());
    }
    return names;
}

Labelling labelling_of(const core::ZipFile& zip, const Entries& images) {
    const core::ZipFile::Entry* entry = zip.find("dataset.json");
    if (entry == nullptr) return {};
    const std::string where = zip.path().string() + ": dataset.json";
    const std::vector<std::byte> text = zip.read(*entry, largest_labels);
    const nlohmann::json json = core::parse_json({reinterpret_cast<const char*>(text.data()), text.size()}, where);
    if (!json.is_object() || !json.contains("labels")) core::fail("{}: has no \"labels\"", where);
    const nlohmann::json& list = json["labels"];
    if (list.is_null()) return {};
    if (!list.is_array()) core::fail("{}: \"labels\" must be a list or null, not {}", where, list.type_name());
    std::unordered_map<std::string, std::int64_t> named;
    for (const auto& pair : list) named.insert(label_of(pair, where));
    Labelling labelling{{}, names_in(json, where)};
    for (const auto* image : images) {
        const auto found = named.find(image->name);
        if (found == named.end()) core::fail("{}: \"{}\" has no label; either all images have one or none", where, image->name);
        labelling.labels.push_back(found->second);
    }
    return labelling;
}

std::string identity_of(const Entries& images) {
    std::string identity;
    for (const auto* image : images) identity += fmt::format("{} {} {}\n", image->name, image->size, image->checksum);
    return identity;
}

}  // namespace

EncodedImages images_in_zip(const std::filesystem::path& path) {
    const auto zip = std::make_shared<const core::ZipFile>(path);
    const Entries entries = images_of(*zip);
    if (entries.empty()) core::fail("{}: holds no .png, .jpg or .jpeg", path.string());
    EncodedImages images;
    images.count = static_cast<std::int64_t>(entries.size());
    Labelling labelling = labelling_of(*zip, entries);
    images.labels = std::move(labelling.labels);
    images.classes = count_classes(images.labels, path.string());
    images.class_names = std::move(labelling.class_names);
    if (!images.class_names.empty() && static_cast<std::int64_t>(images.class_names.size()) != images.classes) {
        core::fail("{}: dataset.json names {} classes, the labels are of {}", path.string(), images.class_names.size(), images.classes);
    }
    images.identity = identity_of(entries);
    images.name = [zip, entries](std::int64_t i) { return fmt::format("{}: {}", zip->path().string(), entries[static_cast<std::size_t>(i)]->name); };
    images.read = [zip, entries, name = images.name](std::int64_t i) {
        return core::decode_image(zip->read(*entries[static_cast<std::size_t>(i)], largest_image), name(i), longest_image_side);
    };
    return images;
}

std::shared_ptr<const Dataset> open_image_zip(const DataRequest& request) { return open_encoded(images_in_zip(request.path), request.limit); }

}  // namespace atelier::data
