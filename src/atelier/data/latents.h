#pragma once

#include <memory>
#include <optional>

#include "atelier/data/dataset.h"
#include "atelier/data/shards.h"

namespace atelier::data {

/// A captioned data set as latents of its images: sample i is drawn once, from the normal
/// distribution that an autoencoder gives for image i. `shards` hold the tensors "mean" and
/// "deviation" (standard deviation), in the scaling of the teacher's U-Net; without them there are
/// only captions.
class Latents final : public Dataset {
public:
    Latents(std::shared_ptr<const Dataset> images, data::SampleSpec spec,
            std::optional<Shards> shards)
        : images_(std::move(images)), spec_(std::move(spec)), shards_(std::move(shards)) {}

    std::int64_t size() const override { return images_->size(); }
    std::int64_t classes() const override { return images_->classes(); }
    Tensor samples(std::span<const std::int64_t> indices) const override;
    const std::vector<std::int64_t>& labels() const override { return images_->labels(); }
    const std::vector<std::string>& captions() const override { return images_->captions(); }
    const data::SampleSpec& spec() const override { return spec_; }
    const std::string& hash() const override { return images_->hash(); }
    bool has_samples() const override { return shards_.has_value(); }

private:
    std::shared_ptr<const Dataset> images_;
    data::SampleSpec spec_;
    std::optional<Shards> shards_;
};

}  // namespace atelier::data
