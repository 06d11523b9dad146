#include "atelier/data/memory_dataset.h"

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/safetensors.h"

namespace atelier::data {

namespace {

/// Hash of type, shape, bytes and labels; bytes and labels are hashed separately first, to avoid a
/// copy.
std::string hash_of(const Tensor& stored, const std::vector<std::int64_t>& labels) {
    const std::span bytes(static_cast<const std::byte*>(stored.const_data_ptr()), stored.nbytes());
    return core::sha256(fmt::format("{} {} {} {}", at::toString(stored.scalar_type()),
                                    core::to_string(stored.sizes().vec()), core::sha256(bytes),
                                    core::sha256(std::as_bytes(std::span(labels)))));
}

}  // namespace

MemoryDataset::MemoryDataset(Tensor stored, std::vector<std::int64_t> labels, std::int64_t classes,
                             data::SampleSpec spec, std::int64_t limit)
    : stored_(std::move(stored)),
      labels_(std::move(labels)),
      classes_(classes),
      spec_(std::move(spec)) {
    if (limit > 0 && limit < size()) {
        stored_ = stored_.narrow(0, 0, limit).clone();  // a copy, so that the rest is freed
        if (!labels_.empty()) labels_.resize(static_cast<std::size_t>(limit));
    }
    hash_ = hash_of(stored_, labels_);
}

Tensor MemoryDataset::samples(std::span<const std::int64_t> indices) const {
    for (const std::int64_t i : indices) {
        if (i < 0 || i >= size()) core::fail("the data set has no sample {}; it has {}", i, size());
    }
    const Tensor chosen = stored_.index_select(
        0, at::tensor(at::ArrayRef<std::int64_t>(indices.data(), indices.size()), at::kLong));
    if (spec_.kind == data::SampleSpec::Kind::points) return data::to_model_space(spec_, chosen);
    return chosen.to(at::kFloat).div_(127.5).sub_(1);
}

std::shared_ptr<const Dataset> open_stored(StoredImages images, std::int64_t limit) {
    return std::make_shared<MemoryDataset>(std::move(images.pixels), std::move(images.labels),
                                           images.classes, std::move(images.spec), limit);
}

}  // namespace atelier::data
