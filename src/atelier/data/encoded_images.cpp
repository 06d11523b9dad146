#include "atelier/data/encoded_images.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/data/memory_dataset.h"

namespace atelier::data {

namespace {

void check_size(const EncodedImages& images, std::int64_t i, const core::Image& image, const core::Image& first) {
    if (image.height == first.height && image.width == first.width) return;
    core::fail("{}: is {}x{} pixels, {} is {}x{}; make them of one size with: atelier import FOLDER NEW.zip --size N", images.name(i), image.width,
               image.height, images.name(0), first.width, first.height);
}

/// Copies an image [H,W,c] into uint8 [C,H,W]; grey spreads to all channels.
void copy_into(Tensor place, core::Image& image) {
    place.copy_(at::from_blob(image.pixels.data(), {image.height, image.width, image.channels}, at::kByte).permute({2, 0, 1}));
}

/// Decodes whatever is asked for.
class LazyImages final : public Dataset {
public:
    LazyImages(EncodedImages images, const core::Image& first) : images_(std::move(images)), first_(first) {
        form_.shape = {first.channels, first.height, first.width};
        form_.class_names = images_.class_names;
        hash_ = core::sha256(fmt::format("{} {} {}", images_.count, images_.identity, core::sha256(std::as_bytes(std::span(images_.labels)))));
    }

    std::int64_t size() const override { return images_.count; }
    std::int64_t classes() const override { return images_.classes; }
    const std::vector<std::int64_t>& labels() const override { return images_.labels; }
    const models::DataForm& form() const override { return form_; }
    const std::string& hash() const override { return hash_; }

    Tensor samples(std::span<const std::int64_t> indices) const override {
        const std::int64_t count = static_cast<std::int64_t>(indices.size());
        const Tensor stack = at::empty({count, first_.channels, first_.height, first_.width}, at::kByte);
        in_parallel(count, [&](std::int64_t i) { decode(indices[static_cast<std::size_t>(i)], stack.select(0, i)); });
        return stack.to(at::kFloat).div_(127.5).sub_(1);
    }

private:
    void decode(std::int64_t i, const Tensor& place) const {
        if (i < 0 || i >= size()) core::fail("the data set has no sample {}; it has {}", i, size());
        core::Image image = images_.read(i);
        check_size(images_, i, image, first_);
        if (image.channels > first_.channels) core::fail("{}: is coloured, {} is grey; let a coloured image come first", images_.name(i), images_.name(0));
        copy_into(place, image);
    }

    EncodedImages images_;
    core::Image first_;
    models::DataForm form_;
    std::string hash_;
};

std::shared_ptr<const Dataset> all_in_memory(const EncodedImages& images, const core::Image& first) {
    std::vector<core::Image> decoded(static_cast<std::size_t>(images.count));
    in_parallel(images.count, [&](std::int64_t i) {
        core::Image image = images.read(i);
        check_size(images, i, image, first);
        decoded[static_cast<std::size_t>(i)] = std::move(image);
    });
    const int channels = std::ranges::max(decoded, {}, &core::Image::channels).channels;
    const Tensor stack = at::empty({images.count, channels, first.height, first.width}, at::kByte);
    for (std::int64_t i = 0; i < images.count; ++i) {
        core::Image image = std::move(decoded[static_cast<std::size_t>(i)]);  // freed once it is copied, so that the images are in memory once
        copy_into(stack.select(0, i), image);
    }
    models::DataForm form;
    form.shape = {channels, first.height, first.width};
    form.class_names = images.class_names;
    return std::make_shared<MemoryDataset>(stack, images.labels, images.classes, form, 0);
}

}  // namespace

void in_parallel(std::int64_t count, const std::function<void(std::int64_t)>& work) {
    std::atomic<std::int64_t> next = 0;
    std::exception_ptr trouble;
    std::mutex mutex;
    const auto run = [&] {
        for (std::int64_t i = next++; i < count; i = next++) {
            try {
                work(i);
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (!trouble) trouble = std::current_exception();
                next = count;
            }
        }
    };
    const std::int64_t most = std::clamp<std::int64_t>(count / 8, 1, 16);
    const std::int64_t threads = std::clamp<std::int64_t>(std::thread::hardware_concurrency(), 1, most);
    std::vector<std::jthread> others;
    for (std::int64_t i = 1; i < threads; ++i) others.emplace_back(run);
    run();
    others.clear();
    if (trouble) std::rethrow_exception(trouble);
}

std::shared_ptr<const Dataset> open_encoded(EncodedImages images, std::int64_t limit, std::uint64_t most_in_memory) {
    if (limit > 0 && limit < images.count) {
        images.count = limit;
        if (!images.labels.empty()) images.labels.resize(static_cast<std::size_t>(limit));
    }
    core::Image first = images.read(0);
    const std::uint64_t pixels = static_cast<std::uint64_t>(images.count) * first.pixels.size();
    if (pixels <= most_in_memory) return all_in_memory(images, first);
    first.pixels.clear();
    return std::make_shared<LazyImages>(std::move(images), first);
}

}  // namespace atelier::data
