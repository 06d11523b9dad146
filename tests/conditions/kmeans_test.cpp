#include "atelier/conditions/kmeans.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"

namespace atelier::conditions {
namespace {

using Rows = std::vector<std::vector<double>>;

Rows random_rows(std::size_t count, std::size_t length, std::uint64_t seed) {
    core::RandomStream stream(seed, "rows");
    Rows rows(count, std::vector<double>(length));
    for (auto& row : rows) {
        for (double& x : row) x = stream.normal();
    }
    return rows;
}

KMeansOptions settings(std::int64_t clusters, std::uint64_t seed = 0) {
    KMeansOptions k;
    k.clusters = clusters;
    k.seed = seed;
    return k;
}

double cosine(const std::vector<double>& row, const std::vector<double>& unit) {
    return std::inner_product(row.begin(), row.end(), unit.begin(), 0.0) /
           std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0));
}

std::vector<std::int64_t> sizes(const Clusters& found) {
    std::vector<std::int64_t> sizes(found.centroids.size());
    for (const std::int64_t k : found.assignment) ++sizes.at(static_cast<std::size_t>(k));
    return sizes;
}

TEST(kmeans, separate_bundles_of_directions_are_found) {
    core::RandomStream stream(1, "bundles");
    Rows rows;
    for (int i = 0; i < 90; ++i) {
        std::vector<double> row(3);
        for (std::size_t d = 0; d < 3; ++d)
            row[d] = (d == static_cast<std::size_t>(i % 3) ? 1 : 0) + 0.05 * stream.normal();
        for (double& x : row) x *= 1 + i;  // lengths do not matter
        rows.push_back(row);
    }
    const Clusters found = spherical_kmeans(rows, settings(3, 4));
    for (std::size_t i = 0; i < rows.size(); ++i)
        EXPECT_EQ(found.assignment[i], found.assignment[i % 3]);
    EXPECT_EQ(sizes(found), (std::vector<std::int64_t>{30, 30, 30}));
}

TEST(kmeans, every_row_lies_with_its_nearest_centroid_and_centroids_have_unit_length) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
        const Rows rows = random_rows(60, 4, seed);
        const Clusters found = spherical_kmeans(rows, settings(5, seed));
        double cost = 0;
        for (const auto& c : found.centroids)
            EXPECT_NEAR(std::inner_product(c.begin(), c.end(), c.begin(), 0.0), 1, 1e-12);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const double own =
                cosine(rows[i], found.centroids[static_cast<std::size_t>(found.assignment[i])]);
            for (const auto& c : found.centroids) EXPECT_GE(own + 1e-9, cosine(rows[i], c));
            cost += 1 - own;
        }
        EXPECT_NEAR(found.cost, cost, 1e-9);
    }
}

TEST(kmeans, the_same_seed_gives_the_same_clusters) {
    const Rows rows = random_rows(50, 8, 2);
    const Clusters a = spherical_kmeans(rows, settings(4, 9)),
                   b = spherical_kmeans(rows, settings(4, 9));
    EXPECT_EQ(a.assignment, b.assignment);
    EXPECT_EQ(a.centroids, b.centroids);
}

TEST(kmeans, more_restarts_never_cost_more) {
    const Rows rows = random_rows(80, 3, 3);
    KMeansOptions once = settings(6), often = settings(6);
    once.restarts = 1;
    often.restarts = 12;
    EXPECT_LE(spherical_kmeans(rows, often).cost, spherical_kmeans(rows, once).cost);
}

TEST(kmeans, no_cluster_is_empty_even_when_all_rows_are_equal) {
    const Rows rows(6, {2, 1});
    for (const std::int64_t clusters : {1, 2, 5, 6}) {
        const Clusters found = spherical_kmeans(rows, settings(clusters));
        for (const std::int64_t size : sizes(found)) EXPECT_GE(size, 1);
        EXPECT_NEAR(found.cost, 0, 1e-12);
    }
}

TEST(kmeans, opposite_rows_in_one_cluster_leave_a_unit_centroid) {
    const Clusters found = spherical_kmeans({{1, 0}, {-1, 0}}, settings(1));
    EXPECT_NEAR(std::hypot(found.centroids[0][0], found.centroids[0][1]), 1, 1e-12);
    EXPECT_NEAR(found.cost, 2, 1e-12);
}

TEST(kmeans, huge_and_tiny_rows_have_directions_too) {
    const Clusters found =
        spherical_kmeans({{1e300, 1e300}, {1e-300, 1.01e-300}, {1e300, -1e300}}, settings(2));
    EXPECT_EQ(found.assignment[0], found.assignment[1]);
    EXPECT_NE(found.assignment[0], found.assignment[2]);
}

TEST(kmeans, rows_without_direction_or_too_few_rows_are_errors) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    EXPECT_THROW(spherical_kmeans({{1, 0}, {0, 0}}, settings(1)), core::Error);
    EXPECT_THROW(spherical_kmeans({{1, 0}, {-infinity, 1}}, settings(1)), core::Error);
    EXPECT_THROW(spherical_kmeans({{1, 0}, {1, std::nan("")}}, settings(1)), core::Error);
    EXPECT_THROW(spherical_kmeans({{1, 0}, {1}}, settings(1)), core::Error);
    EXPECT_THROW(spherical_kmeans({{1, 0}, {0, 1}}, settings(3)), core::Error);
    EXPECT_THROW(spherical_kmeans({{1, 0}}, settings(0)), core::Error);
    EXPECT_THROW(spherical_kmeans({}, settings(1)), core::Error);
}

}  // namespace
}  // namespace atelier::conditions
