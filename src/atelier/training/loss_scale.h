#pragma once

#include <map>
#include <string>

namespace atelier::training {

/// The loss scale that keeps small float16 gradients from underflowing (Micikevicius et al. 2018):
/// halved when a gradient overflows, in which case the update is skipped; doubled after 2000
/// updates without overflow. It is a power of two, so scaling is exact.
class LossScale {
public:
    /// `initial` 0: no scaling.
    explicit LossScale(double initial) : scale_(initial) {}

    bool active() const { return scale_ > 0; }
    double factor() const { return active() ? scale_ : 1.0; }
    double skipped() const { return skipped_; }

    /// Adjusts the scale after an update. Returns false if gradients overflow even at the lowest
    /// scale, which has another cause.
    bool update(bool finite);

    /// State that a checkpoint must hold.
    std::map<std::string, double*> scalars();

private:
    double scale_, since_ = 0, skipped_ = 0;
};

}  // namespace atelier::training
