#pragma once

#include <map>
#include <string>

namespace atelier::training {

/// The factor on a loss that keeps float16's small gradients from becoming zeros (Micikevicius et al. 2018): halved when a gradient overflows, and then the
/// update is skipped; doubled after 2000 updates without that. Powers of two, so that it changes no digits.
class LossScale {
public:
    /// `first` 0: no scaling.
    explicit LossScale(double first) : scale_(first) {}

    bool active() const { return scale_ > 0; }
    double factor() const { return active() ? scale_ : 1.0; }
    double skipped() const { return skipped_; }

    /// Takes note of an update. Returns false when gradients overflow at any scale: then something else is wrong.
    bool note(bool finite);

    /// What a checkpoint must hold.
    std::map<std::string, double*> numbers();

private:
    double scale_, since_ = 0, skipped_ = 0;
};

}  // namespace atelier::training
