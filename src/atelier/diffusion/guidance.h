#pragma once

#include <memory>

#include "atelier/diffusion/denoiser.h"

namespace atelier::diffusion {

/// Classifier-free guidance (Ho and Salimans 2022): D(x; none) + w (D(x; c) - D(x; none)), both in
/// one evaluation of a batch twice as large.
class GuidedDenoiser : public Denoiser {
public:
    /// `none` are the labels [1,...] of no condition.
    GuidedDenoiser(std::shared_ptr<const Denoiser> inner, Tensor none, double scale)
        : inner_(std::move(inner)), none_(std::move(none)), scale_(scale) {}

    Tensor denoise(const Tensor& x_t, const Tensor& sigma,
                   const Condition& condition) const override {
        const Tensor& labels = condition.labels;
        const Condition both{at::cat({none_.to(labels.device()).expand_as(labels), labels})};
        const auto halves =
            inner_->denoise(at::cat({x_t, x_t}), at::cat({sigma, sigma}), both).chunk(2);
        return halves[0] + scale_ * (halves[1] - halves[0]);
    }

private:
    std::shared_ptr<const Denoiser> inner_;
    Tensor none_;
    double scale_;
};

}  // namespace atelier::diffusion
