#include "atelier/distillation/micro_batches.h"

#include "atelier/distillation/score_matching.h"
#include "distillation/distillation_fixtures.h"

namespace atelier::distillation {
namespace {

/// Gradients of a whole update: the weighted sum over its micro-batches.
std::vector<Tensor> of_update(Stage& stage, std::size_t index,
                              const backends::Parameters& parameters) {
    std::vector<Tensor> sums;
    double weights = 0;
    for (std::int64_t micro_batch = 0; micro_batch < stage.micro_batches(index); ++micro_batch) {
        const Loss loss = stage.loss(index, 3, 0, micro_batch);
        weights += loss.weight;
        const auto found = torch::autograd::grad({loss.value * loss.weight}, parameters.list(), {},
                                                 std::nullopt, false, true);
        for (std::size_t i = 0; i < found.size(); ++i) {
            if (micro_batch == 0)
                sums.push_back(found[i].defined() ? found[i]
                                                  : at::zeros_like(parameters.list()[i]));
            else if (found[i].defined()) sums[i] = sums[i] + found[i];
        }
    }
    EXPECT_NEAR(weights, 1, 1e-12);
    return sums;
}

void expect_near(const std::vector<Tensor>& micro_batches, const std::vector<Tensor>& whole) {
    double size = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
        EXPECT_TRUE(at::allclose(micro_batches[i], whole[i], 1e-3, 1e-6))
            << i << ": " << (micro_batches[i] - whole[i]).abs().max().item<double>();
        size += whole[i].abs().sum().item<double>();
    }
    EXPECT_GT(size, 0);
}

TEST(MicroBatches, cover_a_batch_exactly_once) {
    EXPECT_EQ(micro_batch_count(8, 0), 1);
    EXPECT_EQ(micro_batch_count(8, 8), 1);
    EXPECT_EQ(micro_batch_count(8, 3), 3);
    EXPECT_EQ(micro_batch_of(8, 3, 2).first, 6);
    EXPECT_EQ(micro_batch_of(8, 3, 2).count, 2);
    EXPECT_EQ(micro_batch_of(8, 3, 2).weight, 0.25);
}

class InMicroBatches : public testing::TestWithParam<MatchingSettings> {};

TEST_P(InMicroBatches, an_update_has_the_gradients_of_the_whole_batch) {
    for (const std::int64_t micro : {1, 3, 4}) {  // 3 leaves a smaller micro-batch
        MatchingSettings settings = GetParam();
        Workbench whole(settings, settings.adversarial.has_value());
        settings.micro_batch = micro;
        Workbench micro_batches(settings, settings.adversarial.has_value());
        expect_near(of_update(*micro_batches.stage, 0, micro_batches.fake),
                    of_update(*whole.stage, 0, whole.fake));
        expect_near(of_update(*micro_batches.stage, 1, micro_batches.student),
                    of_update(*whole.stage, 1, whole.student));
    }
}

INSTANTIATE_TEST_SUITE_P(
    Every, InMicroBatches,
    testing::Values(MatchingSettings{},
                    MatchingSettings{.regression = PairLoss::pseudo_huber,
                                     .regression_weight = 0.5},
                    MatchingSettings{.loss = MatchingLoss::score_identity},
                    // The update of this step is about the second of four evaluations or later.
                    MatchingSettings{.student_steps = 4},
                    MatchingSettings{.adversarial = AdversarialSettings{.gan_weight = 0.1}},
                    // The head sees only some of the generated samples, possibly none of a
                    // micro-batch.
                    MatchingSettings{.adversarial = AdversarialSettings{.gan_weight = 0.1,
                                                                        .highest_level = 300}}));

TEST(InMicroBatches, score_matching_has_the_gradients_of_the_whole_batch) {
    const networks::Network network = small_network();
    backends::Parameters parameters = random_parameters(network, 1);
    parameters.require_gradients(true);
    const auto gradients = [&](std::int64_t micro) {
        ScoreMatching stage({network, parameters, nullptr, Workbench::real},
                            {.batch = 8, .micro_batch = micro}, {.stream = "teacher"});
        return of_update(stage, 0, parameters);
    };
    expect_near(gradients(3), gradients(0));
}

TEST(MicroBatches, data_are_read_once_per_update) {
    std::int64_t reads = 0;
    const networks::Network network = small_network();
    backends::Parameters parameters = random_parameters(network, 1);
    const auto real = [&](std::int64_t step) {
        ++reads;
        return Workbench::real(step);
    };
    ScoreMatching stage({network, parameters, nullptr, real}, {.batch = 8, .micro_batch = 2}, {});
    for (std::int64_t micro_batch = 0; micro_batch < 4; ++micro_batch)
        stage.loss(0, 5, 0, micro_batch);
    EXPECT_EQ(reads, 1);
    stage.loss(0, 6, 0, 0);
    EXPECT_EQ(reads, 2);
}

}  // namespace
}  // namespace atelier::distillation
