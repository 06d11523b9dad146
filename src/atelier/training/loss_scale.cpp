#include "atelier/training/loss_scale.h"

namespace atelier::training {

namespace {

constexpr double growth_interval = 2000, min_scale = 1.0, max_scale = 16777216.0;

}  // namespace

bool LossScale::update(bool finite) {
    if (!active()) return finite;
    if (!finite) {
        ++skipped_;
        since_ = 0;
        scale_ /= 2;
        return scale_ >= min_scale;
    }
    if (++since_ >= growth_interval && scale_ < max_scale) {
        scale_ *= 2;
        since_ = 0;
    }
    return true;
}

std::map<std::string, double*> LossScale::scalars() {
    if (!active()) return {};
    return {{"scale", &scale_}, {"since", &since_}, {"skipped", &skipped_}};
}

}  // namespace atelier::training
