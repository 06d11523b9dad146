#include "atelier/data/toy_points.h"

#include <cmath>
#include <numbers>

#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

Tensor user_points(const Dataset& data) {
    return data::to_user_space(data.spec(), data.samples(all_of(data)));
}

TEST(toy_points, every_toy_is_forty_thousand_labelled_points) {
    for (const auto& [name, classes] : {std::pair{"toy:ring", 8},
                                        {"toy:moons", 6},
                                        {"toy:spiral", 8},
                                        {"toy:spirals", 8},
                                        {"toy:grid25", 25}}) {
        const auto data = open_dataset({name});
        EXPECT_EQ(data->size(), 40000) << name;
        EXPECT_EQ(data->classes(), classes) << name;
        for (const double weight : prior_of(*data).weights) EXPECT_GT(weight, 1000) << name;
        EXPECT_NEAR(data->samples(all_of(*data)).square().mean().sqrt().item<double>(), 0.5, 1e-4)
            << name;
    }
}

TEST(toy_points, splits_differ_in_points_but_share_the_model_space) {
    const auto train = open_dataset({"toy:ring"}), test = open_dataset({"toy:ring", "test"});
    EXPECT_NE(train->hash(), test->hash());
    EXPECT_TRUE(train->spec() == test->spec());
    EXPECT_EQ(train->hash(), open_dataset({"toy:ring"})->hash());
}

TEST(toy_points, mixtures_are_normal_around_the_centre_of_their_class) {
    for (const char* name : {"toy:ring", "toy:grid25"}) {
        const ToyDistribution distribution = toy_distribution(name);
        const auto data = open_dataset({name});
        const Tensor positions = user_points(*data);
        const float* p = positions.const_data_ptr<float>();
        double squares = 0;
        for (std::int64_t i = 0; i < data->size(); ++i) {
            const auto& centre = distribution.centres.at(
                static_cast<std::size_t>(data->labels()[static_cast<std::size_t>(i)]));
            squares += std::pow(p[2 * i] - centre[0], 2) + std::pow(p[2 * i + 1] - centre[1], 2);
        }
        EXPECT_NEAR(std::sqrt(squares / 80000), distribution.std_dev, 0.001) << name;
    }
}

TEST(toy_points, the_ring_has_frequent_and_rare_modes) {
    const auto weights = prior_of(*open_dataset({"toy:ring"})).weights;
    EXPECT_GT(*std::max_element(weights.begin(), weights.end()),
              3 * *std::min_element(weights.begin(), weights.end()));
    for (const auto& centre : toy_distribution("toy:ring").centres)
        EXPECT_NEAR(std::hypot(centre[0], centre[1]), 1, 1e-12);
}

TEST(toy_points, curves_are_no_mixtures_and_their_arcs_are_equally_frequent) {
    for (const char* name : {"toy:moons", "toy:spiral", "toy:spirals"}) {
        EXPECT_TRUE(toy_distribution(name).centres.empty());
        const auto weights = prior_of(*open_dataset({name})).weights;
        for (const double weight : weights)
            EXPECT_NEAR(weight, 40000.0 / static_cast<double>(weights.size()), 300) << name;
    }
}

TEST(toy_points, the_two_spirals_face_each_other) {
    const auto data = open_dataset({"toy:spirals"});
    const Tensor positions = user_points(*data);
    const float* p = positions.const_data_ptr<float>();
    double squares = 0;
    for (std::int64_t i = 0; i < data->size(); ++i) {
        const double x = p[2 * i], y = p[2 * i + 1], radius = std::hypot(x, y);
        const bool second = data->labels()[static_cast<std::size_t>(i)] >= 4;
        const double angle =
            3 * std::numbers::pi * (radius - 0.2) / 0.8 + (second ? std::numbers::pi : 0);
        squares +=
            std::pow(x - radius * std::cos(angle), 2) + std::pow(y - radius * std::sin(angle), 2);
    }
    // The spread around the nearest point of the arm at the same radius: noise across the curve,
    // and what noise along the radius turns it by, at most 3 pi / 0.8 of a radius's length.
    EXPECT_LT(std::sqrt(squares / 40000), 0.02 * (1 + 3 * std::numbers::pi / 0.8));
}

TEST(toy_points, an_unknown_toy_names_the_nearest) {
    EXPECT_TRUE(holds(message_of([] { open_dataset({"toy:rign"}); }), "did you mean \"ring\"?"));
    EXPECT_THROW(toy_distribution("toy:"), core::UsageError);
}

}  // namespace
}  // namespace atelier::data
