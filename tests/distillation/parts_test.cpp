#include "atelier/distillation/parts.h"

#include "atelier/distillation/score_matching.h"
#include "distillation/distillation_fixtures.h"

namespace atelier::distillation {
namespace {

/// Gradients of a whole update: those of its parts, each times its share.
std::vector<Tensor> of_update(Stage& stage, std::size_t index, const ops::Parameters& parameters) {
    std::vector<Tensor> sums;
    double shares = 0;
    for (std::int64_t part = 0; part < stage.parts(index); ++part) {
        const Loss loss = stage.loss(index, 3, 0, part);
        shares += loss.share;
        const auto found = torch::autograd::grad({loss.value * loss.share}, parameters.list(), {}, std::nullopt, false, true);
        for (std::size_t i = 0; i < found.size(); ++i) {
            if (part == 0) sums.push_back(found[i].defined() ? found[i] : at::zeros_like(parameters.list()[i]));
            else if (found[i].defined()) sums[i] = sums[i] + found[i];
        }
    }
    EXPECT_NEAR(shares, 1, 1e-12);
    return sums;
}

void expect_near(const std::vector<Tensor>& parts, const std::vector<Tensor>& whole) {
    double size = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
        EXPECT_TRUE(at::allclose(parts[i], whole[i], 1e-3, 1e-6)) << i << ": " << (parts[i] - whole[i]).abs().max().item<double>();
        size += whole[i].abs().sum().item<double>();
    }
    EXPECT_GT(size, 0);
}

TEST(Parts, cover_a_batch_once) {
    EXPECT_EQ(parts_of(8, 0), 1);
    EXPECT_EQ(parts_of(8, 8), 1);
    EXPECT_EQ(parts_of(8, 3), 3);
    EXPECT_EQ(rows_of(8, 3, 2).first, 6);
    EXPECT_EQ(rows_of(8, 3, 2).count, 2);
    EXPECT_EQ(rows_of(8, 3, 2).share, 0.25);
}

class InParts : public testing::TestWithParam<MatchingSettings> {};

TEST_P(InParts, an_update_has_the_gradients_of_the_whole_batch) {
    for (const std::int64_t micro : {1, 3, 4}) {  // 3 leaves a smaller part
        MatchingSettings settings = GetParam();
        Workbench whole(settings, settings.adversarial.has_value());
        settings.micro_batch = micro;
        Workbench parts(settings, settings.adversarial.has_value());
        expect_near(of_update(*parts.stage, 0, parts.fake), of_update(*whole.stage, 0, whole.fake));
        expect_near(of_update(*parts.stage, 1, parts.student), of_update(*whole.stage, 1, whole.student));
    }
}

INSTANTIATE_TEST_SUITE_P(Every, InParts,
                         testing::Values(MatchingSettings{}, MatchingSettings{.regression_weight = 0.5}, MatchingSettings{.score_identity = true},
                                         MatchingSettings{.adversarial = AdversarialSettings{.gan_weight = 0.1}},
                                         // The head sees some of the generated samples only, perhaps none of a part.
                                         MatchingSettings{.adversarial = AdversarialSettings{.gan_weight = 0.1, .highest_level = 300}}));

TEST(InParts, score_matching_has_the_gradients_of_the_whole_batch) {
    const networks::Network network = small_network();
    ops::Parameters parameters = fresh(network, 1);
    parameters.require_gradients(true);
    const auto gradients = [&](std::int64_t micro) {
        ScoreMatching stage(network, parameters, nullptr, Workbench::real, {.batch = 8, .micro_batch = micro, .stream = "teacher"});
        return of_update(stage, 0, parameters);
    };
    expect_near(gradients(3), gradients(0));
}

TEST(Parts, data_are_read_once_an_update) {
    std::int64_t reads = 0;
    const networks::Network network = small_network();
    ops::Parameters parameters = fresh(network, 1);
    ScoreMatching stage(network, parameters, nullptr, [&](std::int64_t step) { ++reads; return Workbench::real(step); }, {.batch = 8, .micro_batch = 2});
    for (std::int64_t part = 0; part < 4; ++part) stage.loss(0, 5, 0, part);
    EXPECT_EQ(reads, 1);
    stage.loss(0, 6, 0, 0);
    EXPECT_EQ(reads, 2);
}

}  // namespace
}  // namespace atelier::distillation
