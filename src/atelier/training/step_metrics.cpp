#include "atelier/training/step_metrics.h"

#include <algorithm>

namespace atelier::training {

void StepMetrics::add(const distillation::Measurements& of_micro_batch, double weight) {
    for (const auto& [name, measured] : of_micro_batch) {
        auto found = std::ranges::find(means_, name, &Mean::name);
        if (found == means_.end()) found = means_.insert(means_.end(), {name, {}});
        found->parts.push_back({measured, weight});
    }
}

void StepMetrics::add(std::string name, distillation::Measurement measured) {
    means_.push_back({std::move(name), {{std::move(measured), 1.0}}});
}

void StepMetrics::append(StepMetrics other) {
    std::ranges::move(other.means_, std::back_inserter(means_));
}

bool StepMetrics::known() const {
    return std::ranges::all_of(means_, [](const Mean& mean) {
        return std::ranges::none_of(
            mean.parts, [](const Part& part) { return part.measured.unread().defined(); });
    });
}

distillation::Metrics StepMetrics::read() {
    std::vector<distillation::Measurement*> all;
    for (Mean& mean : means_) {
        for (Part& part : mean.parts) all.push_back(&part.measured);
    }
    distillation::Measurement::read(all);
    distillation::Metrics metrics;
    for (const Mean& mean : means_) {
        double sum = 0, weights = 0;
        for (const Part& part : mean.parts) {
            sum += part.weight * part.measured.value();
            weights += part.weight;
        }
        metrics.emplace_back(mean.name, sum / weights);
    }
    return metrics;
}

}  // namespace atelier::training
