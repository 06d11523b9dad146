#pragma once

#include <string>
#include <utility>
#include <vector>

#include "atelier/backends/torch/torch.h"

namespace atelier::distillation {

/// Named values of one step, in display order.
using Metrics = std::vector<std::pair<std::string, double>>;

/// A number that a step measured. On an accelerator it stays there until it is read, since reading
/// waits for everything that the device still computes.
class Measurement {
public:
    Measurement(double value) : value_(value) {}
    /// Of a scalar tensor: one of the CPU is read now.
    Measurement(const Tensor& scalar);

    /// Reads all that are not read yet, together: the host waits once.
    static void read(const std::vector<Measurement*>& all);
    /// The number; it must have been read.
    double value() const;
    /// The scalar that is not read yet; undefined if there is none.
    const Tensor& unread() const { return unread_; }

private:
    double value_ = 0;
    Tensor unread_;
};

/// Named measurements, in display order.
using Measurements = std::vector<std::pair<std::string, Measurement>>;

}  // namespace atelier::distillation
