#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// What a toy's points were drawn from, so that samples can be judged exactly.
struct ToyTruth {
    std::vector<std::array<double, 2>> centres;  // of the normal distributions of a mixture, a class each; empty: no mixture
    double deviation;                            // in each dimension, around a centre or around the curve
};

/// Whether a path names points that the program draws itself: toy:ring, toy:moons, toy:spiral, toy:grid25.
bool is_toy(const std::filesystem::path& path);

/// The truth about such a path. Throws core::UsageError naming the nearest when there is no such toy.
ToyTruth toy_truth(const std::filesystem::path& path);

/// 40,000 points of the split asked for, the same on every machine. Ring: 8 normal distributions on the unit circle, of unequal
/// weights. Grid25: 25 in 5x5. Moons: two half circles, each cut in 3 classes. Spiral: two turns, cut in 8 classes of equal
/// length. Throws like toy_truth.
std::shared_ptr<const Dataset> open_toy(const DataRequest& request);

}  // namespace atelier::data
