#pragma once

#include <string>
#include <vector>

#include "atelier/metrics/evaluate.h"
#include "atelier/metrics/features.h"

namespace atelier::metrics {

/// The measures of images for which `protocol.count` samples, or `reference` real images (0: it is
/// not known how many), are too few, one line each: a Frechet distance of fewer samples than
/// features, kernel distances whose subsets are smaller than the protocol's, and an Inception Score
/// whose parts have less than half a sample per class.
std::vector<std::string> too_few_for(const FeatureSpace& space, const Protocol& protocol,
                                     std::int64_t reference);

/// The same of points in so many modes: the share of the worst is mostly chance with fewer than 20
/// samples per mode.
std::vector<std::string> too_few_for_modes(const Protocol& protocol, std::int64_t modes);

}  // namespace atelier::metrics
