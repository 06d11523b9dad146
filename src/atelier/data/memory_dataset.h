#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// A data set in memory as it was read: images stay bytes and are converted to float on access.
class MemoryDataset final : public Dataset {
public:
    /// `stored` is uint8 [N,C,H,W] for images, float32 [N,D] in the user's space for points;
    /// `labels` has N entries below `classes`, or none. Only the first `limit` samples are kept,
    /// where it is not 0.
    MemoryDataset(Tensor stored, std::vector<std::int64_t> labels, std::int64_t classes,
                  data::SampleSpec spec, std::int64_t limit);

    std::int64_t size() const override { return stored_.size(0); }
    std::int64_t classes() const override { return classes_; }
    Tensor samples(std::span<const std::int64_t> indices) const override;
    const std::vector<std::int64_t>& labels() const override { return labels_; }
    const data::SampleSpec& spec() const override { return spec_; }
    const std::string& hash() const override { return hash_; }

private:
    Tensor stored_;
    std::vector<std::int64_t> labels_;
    std::int64_t classes_;
    data::SampleSpec spec_;
    std::string hash_;
};

/// Images that a file holds as numbers.
struct StoredImages {
    Tensor pixels;                     // uint8 [N,C,H,W]
    std::vector<std::int64_t> labels;  // N below `classes`, or none
    std::int64_t classes = 0;
    SampleSpec spec;
};

/// Their data set; only the first `limit`, where it is not 0.
std::shared_ptr<const Dataset> open_stored(StoredImages images, std::int64_t limit);

}  // namespace atelier::data
