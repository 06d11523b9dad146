#pragma once

#include <memory>
#include <optional>

#include "atelier/data/dataset.h"
#include "atelier/data/shards.h"

namespace atelier::data {

/// A captioned data set as its images' latents: sample i is drawn once and for all from the normal distribution that an autoencoder gives image i. `shards` hold the
/// tensors "mean" and "deviation", scaled as the teacher's U-Net knows latents; without them there are captions alone.
class Latents final : public Dataset {
public:
    Latents(std::shared_ptr<const Dataset> images, models::DataForm form, std::optional<Shards> shards)
        : images_(std::move(images)), form_(std::move(form)), shards_(std::move(shards)) {}

    std::int64_t size() const override { return images_->size(); }
    std::int64_t classes() const override { return images_->classes(); }
    Tensor samples(std::span<const std::int64_t> indices) const override;
    const std::vector<std::int64_t>& labels() const override { return images_->labels(); }
    const std::vector<std::string>& captions() const override { return images_->captions(); }
    const models::DataForm& form() const override { return form_; }
    const std::string& hash() const override { return images_->hash(); }
    bool has_samples() const override { return shards_.has_value(); }

private:
    std::shared_ptr<const Dataset> images_;
    models::DataForm form_;
    std::optional<Shards> shards_;
};

}  // namespace atelier::data
