#include "atelier/data/sampling.h"

#include <algorithm>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/random_streams.h"

namespace atelier::data {

namespace {

class Subset final : public Dataset {
public:
    Subset(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> indices)
        : dataset_(std::move(dataset)), indices_(std::move(indices)) {
        for (const std::int64_t i : indices_) {
            if (i < 0 || i >= dataset_->size())
                core::fail("the data set has no sample {}; it has {}", i, dataset_->size());
        }
        hash_ = core::sha256(fmt::format("subset {} {}", dataset_->hash(),
                                         core::sha256(std::as_bytes(std::span(indices_)))));
    }

    std::int64_t size() const override { return static_cast<std::int64_t>(indices_.size()); }
    std::int64_t classes() const override { return 0; }
    const std::vector<std::int64_t>& labels() const override { return no_labels_; }
    const data::SampleSpec& spec() const override { return dataset_->spec(); }
    const std::string& hash() const override { return hash_; }

    Tensor samples(std::span<const std::int64_t> indices) const override {
        std::vector<std::int64_t> positions;
        for (const std::int64_t i : indices) {
            if (i < 0 || i >= size())
                core::fail("the data set has no sample {}; it has {}", i, size());
            positions.push_back(indices_[static_cast<std::size_t>(i)]);
        }
        return dataset_->samples(positions);
    }

private:
    std::shared_ptr<const Dataset> dataset_;
    std::vector<std::int64_t> indices_, no_labels_;
    std::string hash_;
};

}  // namespace

std::vector<std::int64_t> stratified_sample(std::span<const std::int64_t> labels,
                                            std::int64_t total, std::int64_t count,
                                            std::uint64_t seed, std::string_view name) {
    if (count >= total) return consecutive(0, total);
    if (count <= 0) return {};
    core::RandomStream stream(seed, name);
    const double start = stream.uniform();
    std::vector<std::int64_t> order = stream.permutation(total);
    const auto label = [&](std::int64_t i) { return labels[static_cast<std::size_t>(i)]; };
    if (!labels.empty()) std::ranges::stable_sort(order, {}, label);
    // Every total/count-th of the shuffled positions, class after class, from a random start.
    std::vector<std::int64_t> chosen;
    const double step = static_cast<double>(total) / static_cast<double>(count);
    for (std::int64_t i = 0; i < count; ++i) {
        const auto position = static_cast<std::int64_t>((static_cast<double>(i) + start) * step);
        chosen.push_back(order[static_cast<std::size_t>(std::min(position, total - 1))]);
    }
    std::ranges::sort(chosen);
    return chosen;
}

std::vector<std::int64_t> seeded_sample(const Dataset& dataset, std::int64_t count,
                                        std::uint64_t seed, std::string_view name) {
    return stratified_sample(dataset.labels(), dataset.size(), count, seed, name);
}

std::vector<std::int64_t> seeded_sample(const Dataset& dataset,
                                        std::span<const std::int64_t> indices, std::int64_t count,
                                        std::uint64_t seed, std::string_view name) {
    std::vector<std::int64_t> labels;
    if (!dataset.labels().empty()) {
        for (const std::int64_t i : indices)
            labels.push_back(dataset.labels().at(static_cast<std::size_t>(i)));
    }
    std::vector<std::int64_t> chosen =
        stratified_sample(labels, static_cast<std::int64_t>(indices.size()), count, seed, name);
    for (std::int64_t& i : chosen) i = indices[static_cast<std::size_t>(i)];
    return chosen;
}

std::vector<std::int64_t> consecutive(std::int64_t first, std::int64_t count) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(std::max<std::int64_t>(0, count)));
    std::iota(all.begin(), all.end(), first);
    return all;
}

std::shared_ptr<const Dataset> subset(std::shared_ptr<const Dataset> dataset,
                                      std::vector<std::int64_t> indices) {
    return std::make_shared<Subset>(std::move(dataset), std::move(indices));
}

std::int64_t samples_per_batch(std::span<const std::int64_t> shape, std::int64_t most) {
    constexpr std::int64_t most_elements = std::int64_t{1} << 25;
    std::int64_t each = 1;
    for (const std::int64_t length : shape) each *= std::max<std::int64_t>(1, length);
    return std::clamp<std::int64_t>(most_elements / each, 1, std::max<std::int64_t>(1, most));
}

}  // namespace atelier::data
