#include "atelier/conditions/kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "atelier/conditions/dot.h"
#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"

namespace atelier::conditions {

namespace {

using Row = std::vector<double>;

/// 1 - cosine of two unit vectors; clamped to 0, below which rounding would put the distance of a
/// row to itself.
double distance(const Row& a, const Row& b) {
    return std::max(0.0, 1 - dot(a.data(), b.data(), a.size()));
}

/// Scales to unit length; false for a zero row, or one with non-finite elements.
bool normalise(Row& row) {
    // Divide by the largest element first, so that squares neither overflow nor underflow.
    double largest = 0;
    for (const double x : row) {
        if (!std::isfinite(x)) return false;
        largest = std::max(largest, std::abs(x));
    }
    if (largest == 0) return false;
    for (double& x : row) x /= largest;
    const double length = std::sqrt(dot(row.data(), row.data(), row.size()));
    for (double& x : row) x /= length;
    return true;
}

std::vector<Row> unit_rows(std::vector<Row> rows) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].size() != rows[0].size()) {
            core::fail("k-means: row {} has {} elements, row 0 has {}", i, rows[i].size(),
                       rows[0].size());
        }
        if (!normalise(rows[i]))
            core::fail("k-means: row {} is zero or not finite, so it has no direction", i);
    }
    return rows;
}

/// One run of the algorithm, from one seeding.
class Attempt {
public:
    Attempt(const std::vector<Row>& rows, const KMeansOptions& settings, int restart)
        : rows_(rows),
          settings_(settings),
          restart_(restart),
          stream_(settings.seed, "kmeans", static_cast<std::uint64_t>(restart)) {}

    Clusters run() {
        seed_centroids();
        assign();
        for (int i = 0; i < settings_.iterations; ++i) {
            move_centroids();
            const auto before = found_.assignment;
            assign();
            if (settings_.on_iteration)
                settings_.on_iteration(restart_ * settings_.iterations + i + 1);
            if (before == found_.assignment) break;
        }
        move_centroids();
        found_.cost = 0;
        for (std::size_t i = 0; i < rows_.size(); ++i)
            found_.cost += distance_to(i, found_.assignment[i]);
        return std::move(found_);
    }

private:
    std::size_t clusters() const { return static_cast<std::size_t>(settings_.clusters); }
    double distance_to(std::size_t row, std::int64_t cluster) const {
        return distance(rows_[row], found_.centroids[static_cast<std::size_t>(cluster)]);
    }

    // k-means++: each next centroid is a row drawn with probability proportional to its distance to
    // the nearest centroid so far.
    void seed_centroids() {
        Row nearest(rows_.size(), std::numeric_limits<double>::infinity());
        std::size_t chosen = stream_.below(rows_.size());
        for (;;) {
            found_.centroids.push_back(rows_[chosen]);
            if (found_.centroids.size() == clusters()) return;
            for (std::size_t i = 0; i < rows_.size(); ++i) {
                nearest[i] = std::min(nearest[i], distance(rows_[i], found_.centroids.back()));
            }
            chosen = drawn_by(nearest);
        }
    }

    std::size_t drawn_by(const Row& weights) {
        double target = stream_.uniform() * std::accumulate(weights.begin(), weights.end(), 0.0);
        std::size_t last = 0;  // where all weights are 0 (equal rows), any will do
        for (std::size_t i = 0; i < weights.size(); ++i) {
            if (weights[i] == 0) continue;
            last = i;
            target -= weights[i];
            if (target < 0) break;
        }
        return last;
    }

    void assign() {
        assign_nearest();
        fill_empty_clusters();
    }

    void assign_nearest() {
        found_.assignment.resize(rows_.size());
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            std::int64_t best = 0;
            for (std::int64_t k = 1; k < settings_.clusters; ++k) {
                if (distance_to(i, k) < distance_to(i, best)) best = k;
            }
            found_.assignment[i] = best;
        }
    }

    std::vector<std::size_t> sizes() const {
        std::vector<std::size_t> sizes(clusters());
        for (const std::int64_t k : found_.assignment) ++sizes[static_cast<std::size_t>(k)];
        return sizes;
    }

    void fill_empty_clusters() {
        auto size = sizes();
        for (std::size_t k = 0; k < size.size(); ++k) {
            if (size[k] > 0) continue;
            std::size_t farthest = rows_.size();
            for (std::size_t i = 0; i < rows_.size(); ++i) {
                if (size[static_cast<std::size_t>(found_.assignment[i])] < 2) continue;
                if (farthest == rows_.size() ||
                    distance_to(i, found_.assignment[i]) >
                        distance_to(farthest, found_.assignment[farthest])) {
                    farthest = i;
                }
            }
            --size[static_cast<std::size_t>(found_.assignment[farthest])];
            found_.assignment[farthest] = static_cast<std::int64_t>(k);
            found_.centroids[k] = rows_[farthest];
            size[k] = 1;
        }
    }

    void move_centroids() {
        std::vector<Row> sums(clusters(), Row(rows_[0].size()));
        for (std::size_t i = 0; i < rows_.size(); ++i) {
            Row& sum = sums[static_cast<std::size_t>(found_.assignment[i])];
            std::transform(sum.begin(), sum.end(), rows_[i].begin(), sum.begin(), std::plus<>());
        }
        for (std::size_t k = 0; k < sums.size(); ++k) {
            // Opposite rows may cancel; then any direction is as good, and the previous centroid
            // stays.
            if (normalise(sums[k])) found_.centroids[k] = std::move(sums[k]);
        }
    }

    const std::vector<Row>& rows_;
    const KMeansOptions& settings_;
    int restart_;
    core::RandomStream stream_;
    Clusters found_;
};

}  // namespace

Clusters spherical_kmeans(const std::vector<std::vector<double>>& rows,
                          const KMeansOptions& settings) {
    if (settings.clusters < 1 || settings.restarts < 1)
        core::fail("k-means needs at least one cluster and one restart");
    if (rows.size() < static_cast<std::size_t>(settings.clusters)) {
        core::fail("k-means: {} rows cannot fill {} clusters; ask for fewer", rows.size(),
                   settings.clusters);
    }
    const auto units = unit_rows(rows);
    Clusters best = Attempt(units, settings, 0).run();
    for (int restart = 1; restart < settings.restarts; ++restart) {
        Clusters next = Attempt(units, settings, restart).run();
        if (next.cost < best.cost) best = std::move(next);
    }
    return best;
}

}  // namespace atelier::conditions
