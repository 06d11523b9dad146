#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace atelier::conditions {

struct Clusters {
    std::vector<std::vector<double>> centroids;  // unit length
    std::vector<std::int64_t> assignment;        // row -> cluster
    double cost = 0;                             // summed 1 - cosine
};

struct KMeans {
    std::int64_t clusters = 1;
    std::uint64_t seed = 0;
    int restarts = 8;
    int iterations = 100;
    std::function<void(int done)> iterated;  // called after each iteration, of restarts times iterations
};

/// Spherical k-means: k-means++ seeding, cosine distance, the best of several seeded restarts. Ties go to the lowest cluster; an
/// empty cluster is re-seeded with the row farthest from its centroid. `rows` are vectors of one length, none zero. Throws
/// core::Error when there are fewer rows than clusters.
Clusters spherical_kmeans(const std::vector<std::vector<double>>& rows, const KMeans& settings);

}  // namespace atelier::conditions
