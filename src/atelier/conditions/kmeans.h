#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace atelier::conditions {

struct Clusters {
    std::vector<std::vector<double>> centroids;  // unit length
    std::vector<std::int64_t> assignment;        // row -> cluster
    double cost = 0;                             // sum of 1 - cosine
};

struct KMeansOptions {
    std::int64_t clusters = 1;
    std::uint64_t seed = 0;
    int restarts = 8;
    int iterations = 100;
    std::function<void(int done)>
        on_iteration;  // called after each iteration; `done` counts up to restarts * iterations
};

/// Spherical k-means: k-means++ seeding, cosine distance, the best of several seeded restarts. Ties
/// go to the lowest cluster; an empty cluster is re-seeded with the row farthest from its centroid.
/// `rows` are non-zero vectors of equal length. Throws core::Error when there are fewer rows than
/// clusters, or a row is zero or not finite.
Clusters spherical_kmeans(const std::vector<std::vector<double>>& rows,
                          const KMeansOptions& settings);

}  // namespace atelier::conditions
