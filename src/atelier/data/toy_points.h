#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "atelier/data/dataset.h"

namespace atelier::data {

/// The distribution of a toy's points, so that samples can be evaluated exactly.
struct ToyDistribution {
    std::vector<std::array<double, 2>>
        centres;     // of the components of a normal mixture, one per class; empty: no mixture
    double std_dev;  // per dimension, around a centre or the curve
};

/// Whether a path names points that the program draws itself: toy:ring, toy:moons, toy:spiral,
/// toy:spirals, toy:grid25.
bool is_toy(const std::filesystem::path& path);

/// The distribution of such a path. Throws core::UsageError naming the nearest when there is no
/// such toy.
ToyDistribution toy_distribution(const std::filesystem::path& path);

/// 40,000 points of the requested split, the same on every machine. Ring: 8 normal distributions on
/// the unit circle, of unequal weights. Grid25: 25 in 5x5. Moons: two half circles, each cut into 3
/// classes. Spiral: two turns, cut into 8 classes of equal length. Spirals: two interleaved ones of
/// one turn and a half, each cut into 4 equally frequent classes. Throws like toy_distribution.
std::shared_ptr<const Dataset> open_toy(const DataRequest& request);

}  // namespace atelier::data
