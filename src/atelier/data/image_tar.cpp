#include "atelier/data/image_tar.h"

#include <algorithm>
#include <charconv>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/tar_file.h"
#include "atelier/data/encoded_images.h"
#include "atelier/data/image_folder.h"
#include "atelier/data/labels.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;
using Bytes = std::span<const std::byte>;

struct Sample {
    std::string name;  // of archive and image, for messages
    Bytes image;
    std::int64_t label = -1;
};

std::vector<fs::path> tars_of(const fs::path& path) {
    if (!fs::is_directory(path)) return {path};
    std::vector<fs::path> tars;
    for (const auto& entry : fs::directory_iterator(path)) {
        if (entry.path().extension() == ".tar" && entry.is_regular_file()) tars.push_back(entry.path());
    }
    std::ranges::sort(tars);
    return tars;
}

/// What the files of one sample share: the folder, and the name up to its first dot.
std::string stem_of(const std::string& name) { return name.substr(0, name.find('.', name.rfind('/') + 1)); }

std::int64_t class_in(Bytes text, const std::string& where) {
    std::string_view digits(reinterpret_cast<const char*>(text.data()), std::min<std::size_t>(text.size(), 32));
    while (!digits.empty() && (digits.back() == '\n' || digits.back() == '\r' || digits.back() == ' ')) digits.remove_suffix(1);
    std::int64_t label = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), label);
    if (problem != std::errc{} || end != digits.data() + digits.size()) core::fail("{}: \"{}\" is no class; expected a whole number", where, digits);
    return label;
}

void add_samples(const core::TarFile& tar, std::vector<Sample>& samples) {
    std::string stem;
    Sample sample;
    const auto finish = [&] {
        if (!sample.image.empty()) samples.push_back(sample);
        sample = {};
    };
    for (const core::TarFile::Entry& entry : tar.entries()) {
        if (stem_of(entry.name) != stem) finish();
        stem = stem_of(entry.name);
        const std::string where = fmt::format("{}: {}", tar.path().string(), entry.name);
        if (entry.name.ends_with(".cls")) sample.label = class_in(entry.bytes, where);
        if (!is_image_name(entry.name)) continue;
        if (!sample.image.empty()) core::fail("{}: is the second image of its sample", where);
        sample.image = entry.bytes;
        sample.name = where;
    }
    finish();
}

std::vector<std::int64_t> labels_of(const std::vector<Sample>& samples) {
    std::vector<std::int64_t> labels;
    for (const Sample& sample : samples) {
        if ((sample.label < 0) != (samples.front().label < 0)) core::fail("{}: either all samples have a class (.cls) or none", sample.name);
        if (sample.label >= 0) labels.push_back(sample.label);
    }
    return labels;
}

std::string identity_of(const std::vector<Sample>& samples) {
    std::string identity;
    for (const Sample& sample : samples) identity += fmt::format("{} {}\n", sample.name, sample.image.size());
    return identity;
}

}  // namespace

bool is_tar_folder(const fs::path& folder) { return !tars_of(folder).empty(); }

EncodedImages images_in_tars(const std::filesystem::path& path) {
    std::vector<std::shared_ptr<const core::TarFile>> tars;
    const auto samples = std::make_shared<std::vector<Sample>>();
    for (const fs::path& each : tars_of(path)) {
        tars.push_back(std::make_shared<const core::TarFile>(each));
        add_samples(*tars.back(), *samples);
    }
    if (samples->empty()) core::fail("{}: holds no .png, .jpg or .jpeg", path.string());
    EncodedImages images;
    images.count = static_cast<std::int64_t>(samples->size());
    images.labels = labels_of(*samples);
    images.classes = count_classes(images.labels, path.string());
    images.identity = identity_of(*samples);
    images.name = [samples](std::int64_t i) { return (*samples)[static_cast<std::size_t>(i)].name; };
    images.read = [samples, tars](std::int64_t i) {
        const Sample& sample = (*samples)[static_cast<std::size_t>(i)];
        return core::decode_image(sample.image, sample.name, longest_image_side);
    };
    return images;
}

std::shared_ptr<const Dataset> open_image_tars(const DataRequest& request) { return open_encoded(images_in_tars(request.path), request.limit); }

}  // namespace atelier::data
