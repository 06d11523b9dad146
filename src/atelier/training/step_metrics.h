#pragma once

#include "atelier/distillation/stage.h"

namespace atelier::training {

/// What a step's updates measured, which may still lie on a device.
class StepMetrics {
public:
    /// Adds the metrics of a micro-batch, whose mean over micro-batches is weighted by `weight`.
    void add(const distillation::Measurements& of_micro_batch, double weight);
    /// Adds a metric of the whole update.
    void add(std::string name, distillation::Measurement measured);
    /// Adds those of another update of the step.
    void append(StepMetrics other);

    /// Whether nothing lies on a device.
    bool known() const;
    /// The means, in the order in which they were added. Waits for the device if some lie there.
    distillation::Metrics read();

private:
    struct Part {
        distillation::Measurement measured;
        double weight;
    };
    struct Mean {
        std::string name;
        std::vector<Part> parts;
    };
    std::vector<Mean> means_;
};

}  // namespace atelier::training
