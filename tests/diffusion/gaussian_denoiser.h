#pragma once

#include "atelier/diffusion/denoiser.h"

namespace atelier::diffusion {

/// The exact denoiser of data N(centre, sigma_data^2) in every dimension: with labels [N,L], the
/// centre of class l is `centres`[l].
class GaussianDenoiser : public Denoiser {
public:
    explicit GaussianDenoiser(double sigma_data, Tensor centres = {})
        : variance_(sigma_data * sigma_data), centres_(std::move(centres)) {}

    Tensor denoise(const Tensor& x_t, const Tensor& sigma,
                   const Condition& condition) const override {
        ++evaluations;
        const Tensor s = sigma.reshape({-1, 1});
        Tensor centre = at::zeros({1, 1}, x_t.options());
        if (condition.labels.defined())
            centre = condition.labels.to(x_t).matmul(centres_.to(x_t)).unsqueeze(1);
        return centre + variance_ / (variance_ + s * s) * (x_t - centre);
    }

    mutable int evaluations = 0;

private:
    double variance_;
    Tensor centres_;
};

}  // namespace atelier::diffusion
