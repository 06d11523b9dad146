#include "atelier/distillation/regression.h"

#include <cmath>

namespace atelier::distillation {

namespace {

Tensor unit_channels(const Tensor& features) {
    return features / (features.square().sum(1, true) + 1e-10).sqrt();
}

}  // namespace

Tensor pseudo_huber(const Tensor& generated, const Tensor& target) {
    const Tensor difference = (generated - target).flatten(1);
    const double c = 0.00054 * std::sqrt(static_cast<double>(difference.size(1)));
    return ((difference.square().sum(1) + c * c).sqrt() - c).mean();
}

RegressionLoss perceptual(std::function<std::vector<Tensor>(const Tensor& images)> layers) {
    return [layers = std::move(layers)](const Tensor& generated, const Tensor& target) {
        const auto a = layers(generated), b = layers(target);
        Tensor sum = at::zeros({}, generated.options());
        for (std::size_t i = 0; i < a.size(); ++i) {
            sum = sum + (unit_channels(a[i]) - unit_channels(b[i])).square().sum(1).mean();
        }
        return sum;
    };
}

}  // namespace atelier::distillation
