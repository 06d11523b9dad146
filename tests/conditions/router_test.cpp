#include "atelier/conditions/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"

namespace atelier::conditions {
namespace {

Partition three_cells() { return {3, "file", {2, 0, 1, 1, 0, 2, 2}}; }

TEST(router, sends_every_class_to_its_owner) {
    const Router router(three_cells());
    EXPECT_EQ(router.students(), 3);
    for (std::int64_t i = 0; i < 7; ++i)
        EXPECT_EQ(router.route(i), three_cells().owner[static_cast<std::size_t>(i)]);
}

TEST(router, a_class_that_does_not_exist_is_a_usage_error_naming_the_range) {
    const Router router(three_cells());
    for (const std::int64_t id : {std::int64_t{-1}, std::int64_t{7}, std::int64_t{1} << 62}) {
        try {
            router.route(id);
            FAIL() << id;
        } catch (const core::UsageError& error) {
            EXPECT_NE(std::string(error.what()).find("classes are 0 to 6"), std::string::npos);
        }
    }
}

TEST(router, refuses_a_partition_that_is_not_total) {
    EXPECT_THROW(Router(Partition{2, "file", {0, -1, 1}}), core::Error);
    EXPECT_THROW(Router(Partition{2, "file", {0, 0}}), core::Error);
}

TEST(router, sends_embeddings_to_the_nearest_centroid_whatever_the_lengths) {
    const Router router(std::vector<std::vector<float>>{{10, 0}, {0, 0.1F}, {-1, -1}});
    EXPECT_EQ(router.students(), 3);
    EXPECT_EQ(router.route(std::array<float, 2>{1, 0.9F}), 0);
    EXPECT_EQ(router.route(std::array<float, 2>{0.9F, 1}), 1);
    EXPECT_EQ(router.route(std::array<float, 2>{-5, 2}), 2);
}

TEST(router, sends_equal_distances_to_the_lowest_id) {
    const Router router(std::vector<std::vector<float>>{{0, 1}, {1, 0}, {3, 0}, {0, 7}});
    EXPECT_EQ(router.route(std::array<float, 2>{1, 1}), 0);
    EXPECT_EQ(router.route(std::array<float, 2>{2, 0}), 1);
    EXPECT_EQ(router.route(std::array<float, 2>{0, 0}), 0);
}

TEST(router, routing_embeddings_is_total_and_does_not_depend_on_their_length) {
    core::RandomStream stream(1, "embeddings");
    std::vector<std::vector<float>> centroids(5, std::vector<float>(16));
    for (auto& c : centroids) stream.fill_normal(c);
    const Router router(centroids);
    for (int i = 0; i < 500; ++i) {
        std::vector<float> embedding(16);
        stream.fill_normal(embedding);
        const std::int64_t owner = router.route(std::span<const float>(embedding));
        EXPECT_TRUE(owner >= 0 && owner < 5);
        for (float& x : embedding) x *= 4;  // a power of two is exact
        EXPECT_EQ(router.route(std::span<const float>(embedding)), owner);
    }
}

TEST(router, offsets_move_the_border_whatever_the_length_of_an_embedding) {
    const Router router(std::vector<std::vector<float>>{{1, 0}, {0, 1}}, {0, 0.3F});
    for (const float length : {0.001F, 1.0F, 1000.0F}) {
        const auto decision = router.decide(std::array<float, 2>{0.8F * length, 0.6F * length});
        EXPECT_EQ(decision.student, 1);
        EXPECT_EQ(decision.runner_up, 0);
        EXPECT_NEAR(decision.score, 0.9, 1e-6);
        EXPECT_NEAR(decision.margin, 0.1, 1e-6);
    }
    EXPECT_THROW(Router(std::vector<std::vector<float>>{{1, 0}}, {0, 0}), core::Error);
}

TEST(router, the_runner_up_is_the_second_best_in_any_order) {
    const Router router(std::vector<std::vector<float>>{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}});
    for (const std::array<float, 3> embedding :
         {std::array<float, 3>{3, 2, 1}, {1, 3, 2}, {2, 1, 3}, {3, 1, 2}, {1, 2, 3}, {2, 3, 1}}) {
        const auto decision = router.decide(embedding);
        EXPECT_EQ(embedding[static_cast<std::size_t>(decision.student)], 3);
        EXPECT_EQ(embedding[static_cast<std::size_t>(decision.runner_up)], 2);
        EXPECT_NEAR(decision.margin, 1 / std::sqrt(14.0), 1e-6);
    }
}

TEST(router, bad_centroids_and_embeddings_are_errors) {
    using Centroids = std::vector<std::vector<float>>;
    EXPECT_THROW(Router(Centroids{}), core::Error);
    EXPECT_THROW(Router(Centroids{{}}), core::Error);
    EXPECT_THROW(Router(Centroids{{1, 0}, {0, 0}}), core::Error);
    EXPECT_THROW(Router(Centroids{{1, 0}, {1}}), core::Error);
    EXPECT_THROW(Router(Centroids{{1, NAN}}), core::Error);
    const Router router(Centroids{{1, 0}, {0, 1}});
    EXPECT_THROW(router.route(std::array<float, 3>{1, 0, 0}), core::Error);
    EXPECT_THROW(router.route(std::array<float, 2>{1, NAN}), core::Error);
    EXPECT_THROW(router.route(std::array<float, 2>{INFINITY, 1}), core::Error);
}

TEST(router, one_kind_of_condition_is_not_taken_for_the_other) {
    EXPECT_THROW(Router(three_cells()).route(std::array<float, 2>{1, 0}), core::UsageError);
    EXPECT_THROW(Router(std::vector<std::vector<float>>{{1, 0}}).route(0), core::UsageError);
}

TEST(router, groups_hold_every_position_once_in_order) {
    const Router router(three_cells());
    core::RandomStream stream(3, "batch");
    for (int size : {0, 1, 5, 200}) {
        std::vector<std::int64_t> classes;
        for (int i = 0; i < size; ++i)
            classes.push_back(static_cast<std::int64_t>(stream.below(7)));
        const auto groups = group_by_student(router, classes);
        std::set<std::int64_t> seen;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            EXPECT_TRUE(g == 0 || groups[g - 1].student < groups[g].student);
            EXPECT_FALSE(groups[g].positions.empty());
            EXPECT_TRUE(std::is_sorted(groups[g].positions.begin(), groups[g].positions.end()));
            for (const std::int64_t p : groups[g].positions) {
                EXPECT_EQ(router.route(classes[static_cast<std::size_t>(p)]), groups[g].student);
                EXPECT_TRUE(seen.insert(p).second);
            }
        }
        EXPECT_EQ(static_cast<int>(seen.size()), size);
    }
}

TEST(router, a_batch_with_an_unknown_class_is_refused) {
    EXPECT_THROW(group_by_student(Router(three_cells()), std::array<std::int64_t, 2>{0, 7}),
                 core::UsageError);
}

}  // namespace
}  // namespace atelier::conditions
