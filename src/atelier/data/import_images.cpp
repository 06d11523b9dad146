#include "atelier/data/import_images.h"

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"
#include "atelier/core/resize.h"
#include "atelier/core/signals.h"
#include "atelier/core/zip_writer.h"
#include "atelier/data/image_folder.h"
#include "atelier/data/image_tar.h"
#include "atelier/data/image_zip.h"

namespace atelier::data {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t at_once = 256;

/// Ten thousand a folder, as EDM's tool names them.
std::string name_of(std::int64_t i) { return fmt::format("{:05}/img{:08}.png", i / 1000, i); }

std::string labels_json(const EncodedImages& images, const ImportSettings& settings) {
    nlohmann::json labels;
    for (std::size_t i = 0; i < images.labels.size(); ++i) labels.push_back({name_of(static_cast<std::int64_t>(i)), images.labels[i]});
    nlohmann::json json{{"labels", labels}};
    json["made_by"] = {{"program", "atelier import"}, {"side", settings.side}, {"channels", settings.channels}, {"filter", core::name_of(settings.filter)}};
    if (!images.class_names.empty()) json["class_names"] = images.class_names;
    return json.dump();
}

std::string purpose_of(const EncodedImages& images, const ImportSettings& settings) {
    return nlohmann::json{{"images", images.count}, {"identity", core::sha256(images.identity)},
                          {"labels", core::sha256(std::as_bytes(std::span(images.labels)))}, {"side", settings.side}, {"channels", settings.channels},
                          {"filter", core::name_of(settings.filter)}}.dump();
}

}  // namespace

EncodedImages images_at(const fs::path& path) {
    if (!fs::exists(path)) core::fail("{}: there is no such file or folder; images are imported from a folder, a .zip or .tar", path.string());
    if (path.extension() == ".zip") return images_in_zip(path);
    if (path.extension() == ".tar" || (fs::is_directory(path) && is_tar_folder(path))) return images_in_tars(path);
    if (!fs::is_directory(path)) core::fail("{}: is neither a folder nor a .zip or .tar of images", path.string());
    return images_in_folder({.path = path, .split = "train", .limit = 0});
}

void import_images(const EncodedImages& images, const fs::path& to, const ImportSettings& settings, const std::function<void(std::int64_t done)>& done) {
    if (fs::exists(to)) core::fail("{}: exists already; name a new file", to.string());
    core::ZipWriter zip(to, purpose_of(images, settings));
    while (static_cast<std::int64_t>(zip.count()) < images.count) {
        if (core::stop_requested()) {
            throw core::Interrupted(fmt::format("{}: stopped after {} of {} images; run the same command again to go on", to.string(), zip.count(), images.count));
        }
        const auto first = static_cast<std::int64_t>(zip.count()), n = std::min(at_once, images.count - first);
        std::vector<std::vector<std::uint8_t>> encoded(static_cast<std::size_t>(n));
        in_parallel(n, [&](std::int64_t i) {
            const core::Image square = core::with_channels(core::square(images.read(first + i), settings.side, settings.filter), settings.channels);
            encoded[static_cast<std::size_t>(i)] = core::encode_png(square, {}, core::PngSize::smallest);
        });
        for (std::int64_t i = 0; i < n; ++i) zip.add(name_of(first + i), std::as_bytes(std::span(encoded[static_cast<std::size_t>(i)])));
        done(static_cast<std::int64_t>(zip.count()));
    }
    const std::string labels = labels_json(images, settings);
    if (static_cast<std::int64_t>(zip.count()) == images.count) zip.add("dataset.json", std::as_bytes(std::span(labels)));
    zip.commit();
}

}  // namespace atelier::data
