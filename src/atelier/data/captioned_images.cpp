#include "atelier/data/captioned_images.h"

#include <ATen/ops/_upsample_bilinear2d_aa.h>

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/data/caption_grammar.h"
#include "atelier/data/idx.h"
#include "atelier/data/memory_dataset.h"

namespace atelier::data {

namespace {

constexpr std::string_view scheme = "captions:";
constexpr std::int64_t side = 28, large_side = 20, small_side = 12;

/// The path after "captions:", and the attribute before it.
struct CaptionPath {
    std::string folder;
    const Attribute* attribute = nullptr;
};

CaptionPath parse_path(const std::filesystem::path& path) {
    const std::string rest = path.string().substr(scheme.size());
    const std::size_t colon = rest.find(':');
    if (colon == rest.npos || std::filesystem::exists(rest)) return {rest};
    return {rest.substr(colon + 1), &attribute(rest.substr(0, colon))};
}

/// Images uint8 [N,1,28,28] scaled down to uint8 [N,to,to].
Tensor shrunk(const Tensor& images, std::int64_t to) {
    const Tensor small = at::_upsample_bilinear2d_aa(images.to(at::kFloat), {to, to}, false,
                                                     std::nullopt, std::nullopt);
    return small.round().clamp(0, 255).to(at::kByte).squeeze(1).contiguous();
}

class Composer {
public:
    Composer(const Tensor& images, const std::vector<std::int64_t>& labels)
        : large_(shrunk(images, large_side)), small_(shrunk(images, small_side)), by_garment_(10) {
        for (std::size_t i = 0; i < labels.size(); ++i)
            by_garment_[static_cast<std::size_t>(labels[i])].push_back(
                static_cast<std::int64_t>(i));
    }

    /// Draws `scene` with garment `image` (for two: and another of the same class) into `canvas`,
    /// 28x28 zero bytes.
    void compose(std::uint8_t* canvas, const Scene& scene, std::int64_t image,
                 core::RandomStream& stream) const {
        const auto jitter = [&](std::uint64_t most) {
            return static_cast<std::int64_t>(stream.below(most + 1));
        };
        if (scene.amount == 0) {
            paste(canvas, large_, image, 4 * scene.place, 2 + jitter(4));
        } else {
            const std::int64_t left = 7 * scene.place + jitter(2);
            if (scene.amount == 1) paste(canvas, small_, image, left, 2 + jitter(12));
            if (scene.amount == 2) {
                const auto& same_garment = by_garment_[static_cast<std::size_t>(scene.garment)];
                paste(canvas, small_, image, left, 1 + jitter(1));
                paste(canvas, small_, same_garment[stream.below(same_garment.size())], left,
                      15 + jitter(1));
            }
        }
        if (scene.colour == 1)
            std::transform(canvas, canvas + side * side, canvas,
                           [](std::uint8_t grey) { return static_cast<std::uint8_t>(255 - grey); });
    }

private:
    static void paste(std::uint8_t* canvas, const Tensor& from, std::int64_t image,
                      std::int64_t left, std::int64_t top) {
        const std::int64_t size = from.size(1);
        const std::uint8_t* pixels = from.const_data_ptr<std::uint8_t>() + image * size * size;
        for (std::int64_t y = 0; y < size; ++y)
            std::copy_n(pixels + y * size, size, canvas + (top + y) * side + left);
    }

    Tensor large_, small_;
    std::vector<std::vector<std::int64_t>> by_garment_;
};

class CaptionedImages final : public Dataset {
public:
    CaptionedImages(MemoryDataset images, std::vector<std::string> captions)
        : images_(std::move(images)), captions_(std::move(captions)) {}

    std::int64_t size() const override { return images_.size(); }
    std::int64_t classes() const override { return images_.classes(); }
    Tensor samples(std::span<const std::int64_t> indices) const override {
        return images_.samples(indices);
    }
    const std::vector<std::int64_t>& labels() const override { return images_.labels(); }
    const std::vector<std::string>& captions() const override { return captions_; }
    const data::SampleSpec& spec() const override { return images_.spec(); }
    const std::string& hash() const override { return images_.hash(); }

private:
    MemoryDataset images_;
    std::vector<std::string> captions_;
};

/// The garment images of a split and their classes.
std::shared_ptr<const Dataset> garments_of(const std::string& folder, const DataRequest& request) {
    const auto garments =
        open_dataset({.path = folder, .split = request.split, .limit = request.limit});
    const std::vector<std::int64_t> expected{1, side, side};
    if (garments->spec().shape != expected || garments->classes() != attribute("garment").values) {
        core::fail(
            "{}: captions are composed of 28x28 grey images in ten classes; install "
            "dataset-fashion-mnist and name captions:/usr/share/datasets/fashion-mnist",
            folder);
    }
    return garments;
}

/// Converts back from model space, since the data set does not expose its bytes.
Tensor bytes_of(const Dataset& dataset) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(dataset.size()));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
    return (dataset.samples(all) + 1).mul_(127.5).round_().to(at::kByte);
}

}  // namespace

bool is_captioned(const std::filesystem::path& path) { return path.string().starts_with(scheme); }

bool is_composed(const std::filesystem::path& path) {
    if (!is_captioned(path)) return false;
    const CaptionPath what = parse_path(path);
    return what.attribute != nullptr ||
           (std::filesystem::is_directory(what.folder) && is_idx_folder(what.folder));
}

std::shared_ptr<const Dataset> open_captioned(const DataRequest& request) {
    const CaptionPath what = parse_path(request.path);
    if (!is_composed(request.path)) {
        return open_dataset({.path = what.folder,
                             .split = request.split,
                             .limit = request.limit,
                             .captions = Captions::required});
    }
    const auto garments = garments_of(what.folder, request);
    struct SceneCaptions {
        Scene scene;
        std::int64_t first, count;  // of its captions
    };
    std::vector<std::vector<SceneCaptions>> of_garment(10);
    std::vector<std::string> captions;
    for (const Scene& scene : scenes(request.split == "test")) {
        const auto words = wordings(scene);
        of_garment[static_cast<std::size_t>(scene.garment)].push_back(
            {scene, static_cast<std::int64_t>(captions.size()),
             static_cast<std::int64_t>(words.size())});
        captions.insert(captions.end(), words.begin(), words.end());
    }
    const Composer composer(bytes_of(*garments), garments->labels());
    Tensor images = at::zeros({garments->size(), 1, side, side}, at::kByte);
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < garments->size(); ++i) {
        core::RandomStream stream(0, "captions/" + request.split, static_cast<std::uint64_t>(i));
        const auto& possible =
            of_garment[static_cast<std::size_t>(garments->labels()[static_cast<std::size_t>(i)])];
        const SceneCaptions& chosen = possible[stream.below(possible.size())];
        const auto wording =
            static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(chosen.count)));
        composer.compose(images.mutable_data_ptr<std::uint8_t>() + i * side * side, chosen.scene, i,
                         stream);
        labels.push_back(what.attribute ? chosen.scene.*(what.attribute->member)
                                        : chosen.first + wording);
    }
    data::SampleSpec spec;
    spec.shape = {1, side, side};
    if (what.attribute)
        return std::make_shared<MemoryDataset>(std::move(images), std::move(labels),
                                               what.attribute->values, std::move(spec), 0);
    const auto count = static_cast<std::int64_t>(captions.size());
    return std::make_shared<CaptionedImages>(
        MemoryDataset(std::move(images), std::move(labels), count, std::move(spec), 0),
        std::move(captions));
}

}  // namespace atelier::data
