#include "atelier/training/loss_scale.h"

namespace atelier::training {

namespace {

constexpr double patience = 2000, least = 1.0, most = 16777216.0;

}  // namespace

bool LossScale::note(bool finite) {
    if (!active()) return finite;
    if (!finite) {
        ++skipped_;
        since_ = 0;
        scale_ /= 2;
        return scale_ >= least;
    }
    if (++since_ >= patience && scale_ < most) {
        scale_ *= 2;
        since_ = 0;
    }
    return true;
}

std::map<std::string, double*> LossScale::numbers() {
    if (!active()) return {};
    return {{"scale", &scale_}, {"since", &since_}, {"skipped", &skipped_}};
}

}  // namespace atelier::training
