#include "atelier/diffusion/preconditioning.h"

namespace atelier::diffusion {

Preconditioning edm_preconditioning(const Tensor& sigma, double sigma_data) {
    const Tensor total = sigma * sigma + sigma_data * sigma_data;
    return {sigma_data * sigma_data / total, sigma * sigma_data / total.sqrt(), 1.0 / total.sqrt(), sigma.log() / 4};
}

Tensor edm_loss_weight(const Tensor& sigma, double sigma_data) {
    return (sigma * sigma + sigma_data * sigma_data) / (sigma * sigma_data).square();
}

Tensor along(const Tensor& per_sample, const Tensor& like) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
    shape[0] = -1;
    return per_sample.reshape(shape);
}

}  // namespace atelier::diffusion
