#include "atelier/data/encoded_images.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/processors.h"

namespace atelier::data {

namespace {

void check_size(const EncodedImages& images, std::int64_t i, const core::Image& image,
                const core::Image& first) {
    if (image.height == first.height && image.width == first.width) return;
    core::fail(
        "{}: is {}x{} pixels, {} is {}x{}; make them of one size with: atelier import FOLDER "
        "NEW.zip --size N",
        images.name(i), image.width, image.height, images.name(0), first.width, first.height);
}

/// Copies an image [H,W,c] into uint8 [C,H,W]; grey is repeated to all channels.
void copy_into(Tensor target, core::Image& image) {
    target.copy_(
        at::from_blob(image.pixels.data(), {image.height, image.width, image.channels}, at::kByte)
            .permute({2, 0, 1}));
}

/// Decodes images on request. Some of the images are checked beforehand, so that mixed sets are
/// detected before training.
class LazyImages final : public Dataset {
public:
    LazyImages(EncodedImages images, core::Image first)
        : images_(std::move(images)), first_(std::move(first)) {
        first_.pixels.clear();
        first_.channels = sample_channels();
        spec_.shape = {first_.channels, first_.height, first_.width};
        spec_.class_names = images_.class_names;
        hash_ = core::sha256(fmt::format("{} {} {}", images_.count, images_.identity,
                                         core::sha256(std::as_bytes(std::span(images_.labels)))));
    }

    std::int64_t size() const override { return images_.count; }
    std::int64_t classes() const override { return images_.classes; }
    const std::vector<std::int64_t>& labels() const override { return images_.labels; }
    const data::SampleSpec& spec() const override { return spec_; }
    const std::string& hash() const override { return hash_; }

    Tensor samples(std::span<const std::int64_t> indices) const override {
        const std::int64_t count = static_cast<std::int64_t>(indices.size());
        const Tensor stack =
            at::empty({count, first_.channels, first_.height, first_.width}, at::kByte);
        for_each_concurrently(count, [&](std::int64_t i) {
            decode(indices[static_cast<std::size_t>(i)], stack.select(0, i));
        });
        if (images_.decoder->transparent > 0)
            log_once(images_.where + ": images with transparency are put on white", false);
        return stack.to(at::kFloat).div_(127.5).sub_(1);
    }

private:
    int sample_channels() const {
        constexpr std::int64_t most = 512;
        const std::int64_t count = std::min(most, images_.count);
        std::vector<int> channels(static_cast<std::size_t>(count));
        for_each_concurrently(count, [&](std::int64_t i) {
            const std::int64_t index = i * images_.count / count;
            const core::Image image = images_.read(index);
            check_size(images_, index, image, first_);
            channels[static_cast<std::size_t>(i)] = image.channels;
        });
        return std::ranges::max(channels);
    }

    void decode(std::int64_t i, const Tensor& target) const {
        if (i < 0 || i >= size()) core::fail("the data set has no sample {}; it has {}", i, size());
        core::Image image = images_.read(i);
        check_size(images_, i, image, first_);
        if (image.channels > first_.channels)
            core::fail(
                "{}: is coloured, and the {} images looked at before are grey; make them alike "
                "with: atelier import FOLDER NEW.zip --size N",
                images_.name(i), images_.count < 512 ? images_.count : 512);
        copy_into(target, image);
    }

    EncodedImages images_;
    core::Image first_;
    data::SampleSpec spec_;
    std::string hash_;
};

/// Images that are each labelled with their own caption.
class Captioned final : public Dataset {
public:
    Captioned(std::shared_ptr<const Dataset> images, std::vector<std::string> captions)
        : images_(std::move(images)), captions_(std::move(captions)), labels_(captions_.size()) {
        std::iota(labels_.begin(), labels_.end(), 0);
        std::string all = images_->hash();
        for (const std::string& caption : captions_) all += "\n" + caption;
        hash_ = core::sha256(all);
    }

    std::int64_t size() const override { return images_->size(); }
    std::int64_t classes() const override { return size(); }
    Tensor samples(std::span<const std::int64_t> indices) const override {
        return images_->samples(indices);
    }
    const std::vector<std::int64_t>& labels() const override { return labels_; }
    const std::vector<std::string>& captions() const override { return captions_; }
    const data::SampleSpec& spec() const override { return images_->spec(); }
    const std::string& hash() const override { return hash_; }

private:
    std::shared_ptr<const Dataset> images_;
    std::vector<std::string> captions_;
    std::vector<std::int64_t> labels_;
    std::string hash_;
};

std::shared_ptr<const Dataset> all_in_memory(const EncodedImages& images,
                                             const core::Image& first) {
    std::vector<core::Image> decoded(static_cast<std::size_t>(images.count));
    for_each_concurrently(images.count, [&](std::int64_t i) {
        core::Image image = images.read(i);
        check_size(images, i, image, first);
        decoded[static_cast<std::size_t>(i)] = std::move(image);
    });
    for (const std::string& note : images.decoder->notes())
        log_once(images.where + ": " + note, false);
    const int channels = std::ranges::max(decoded, {}, &core::Image::channels).channels;
    const Tensor stack = at::empty({images.count, channels, first.height, first.width}, at::kByte);
    for (std::int64_t i = 0; i < images.count; ++i) {
        core::Image image = std::move(decoded[static_cast<std::size_t>(
            i)]);  // freed once copied, to hold only one copy in memory
        copy_into(stack.select(0, i), image);
    }
    data::SampleSpec spec;
    spec.shape = {channels, first.height, first.width};
    spec.class_names = images.class_names;
    return std::make_shared<MemoryDataset>(stack, images.labels, images.classes, spec, 0);
}

}  // namespace

void for_each_concurrently(std::int64_t count, const std::function<void(std::int64_t)>& work) {
    std::atomic<std::int64_t> next = 0;
    std::exception_ptr error;
    std::mutex mutex;
    const auto run = [&] {
        for (std::int64_t i = next++; i < count; i = next++) {
            try {
                work(i);
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (!error) error = std::current_exception();
                next = count;
            }
        }
    };
    const std::int64_t most = std::clamp<std::int64_t>(count / 8, 1, 16);
    const std::int64_t threads = std::clamp<std::int64_t>(core::usable_processors(), 1, most);
    std::vector<std::jthread> others;
    for (std::int64_t i = 1; i < threads; ++i) others.emplace_back(run);
    run();
    others.clear();
    if (error) std::rethrow_exception(error);
}

EncodedImages encoded(StoredImages images, std::string where) {
    EncodedImages all;
    all.count = images.pixels.size(0);
    all.labels = std::move(images.labels);
    all.classes = images.classes;
    all.class_names = std::move(images.spec.class_names);
    const Tensor pixels = images.pixels.contiguous();
    all.identity = core::sha256(
        std::span(static_cast<const std::byte*>(pixels.const_data_ptr()), pixels.nbytes()));
    all.read = [pixels](std::int64_t i) { return image_of(pixels[i].permute({1, 2, 0})); };
    all.name = [where](std::int64_t i) { return fmt::format("{}: image {}", where, i); };
    all.where = std::move(where);
    return all;
}

core::Image ImageDecoder::decode(std::span<const std::byte> file, const std::string& where) {
    core::DecodeNotes notes;
    core::Image image = core::decode_image(file, where, options, &notes);
    transparent += notes.transparent ? 1 : 0;
    rotated += notes.rotated ? 1 : 0;
    cmyk += notes.cmyk ? 1 : 0;
    return image;
}

std::vector<std::string> ImageDecoder::notes() const {
    const auto images = [](std::int64_t count, const char* one, const char* many) {
        return fmt::format("{} image{} {}", count, count == 1 ? "" : "s", count == 1 ? one : many);
    };
    std::vector<std::string> lines;
    const core::Colour& ground = options.background;
    const std::string colour =
        ground == core::white ? "white"
        : ground == core::Colour{0, 0, 0}
            ? "black"
            : fmt::format("#{:02x}{:02x}{:02x}", ground[0], ground[1], ground[2]);
    if (transparent > 0)
        lines.push_back(images(transparent, "with transparency was", "with transparency were") +
                        " put on " + colour);
    if (rotated > 0)
        lines.push_back(images(rotated, "was", "were") + " rotated upright, as EXIF says");
    if (cmyk > 0) lines.push_back(images(cmyk, "was", "were") + " converted from CMYK");
    return lines;
}

void log_once(const std::string& line, bool as_warning) {
    static std::mutex mutex;
    static std::set<std::string> logged;
    const std::lock_guard lock(mutex);
    if (!logged.insert(line).second) return;
    if (as_warning) core::log::warning_line(line);
    else core::log::info_line(line);
}

void log_passed_over(const EncodedImages& images) {
    if (images.passed_over.count() > 0)
        log_once(images.where + ": " + images.passed_over.summary(),
                 !images.passed_over.only_expected());
    for (const std::string& remark : images.remarks) log_once(images.where + ": " + remark, false);
}

std::shared_ptr<const Dataset> open_encoded(EncodedImages images, std::int64_t limit,
                                            std::uint64_t most_in_memory) {
    log_passed_over(images);
    if (limit > 0 && limit < images.count) {
        images.count = limit;
        if (!images.labels.empty()) images.labels.resize(static_cast<std::size_t>(limit));
        if (!images.captions.empty()) images.captions.resize(static_cast<std::size_t>(limit));
    }
    std::vector<std::string> captions = std::move(images.captions);
    core::Image first = images.read(0);
    const std::uint64_t pixels = static_cast<std::uint64_t>(images.count) * first.pixels.size();
    std::shared_ptr<const Dataset> data;
    if (pixels <= most_in_memory) {
        images.decoder->transparent = images.decoder->rotated = images.decoder->cmyk =
            0;  // the first image is read again
        data = all_in_memory(images, first);
    } else {
        data = std::make_shared<LazyImages>(std::move(images), std::move(first));
    }
    if (captions.empty()) return data;
    return std::make_shared<Captioned>(std::move(data), std::move(captions));
}

}  // namespace atelier::data
