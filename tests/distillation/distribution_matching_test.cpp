#include "distillation/distillation_fixtures.h"

#include <set>

#include "atelier/core/error.h"
#include "atelier/distillation/divergences.h"
#include "atelier/distillation/health.h"

namespace atelier::distillation {
namespace {

/// The exact denoiser of N(mean, sigma_data^2) in every element.
Tensor gaussian_denoiser(const Tensor& x_t, double sigma, double mean, double sigma_data) {
    const double total = sigma_data * sigma_data + sigma * sigma;
    return (sigma_data * sigma_data * x_t + sigma * sigma * mean) / total;
}

TEST(DistributionMatchingGradient, points_from_the_generated_distribution_to_the_real_one) {
    // Real N(0,1), generated N(1,1): (fake - real) is sigma^2/(1+sigma^2) everywhere, before the
    // normaliser.
    const double sigma = 2;
    const Tensor x = at::tensor({0.5f, 1.0f, 3.0f, -1.0f}).view({2, 2}), x_t = x + 0.3;
    const Tensor real = gaussian_denoiser(x_t, sigma, 0, 1),
                 fake = gaussian_denoiser(x_t, sigma, 1, 1);
    const Tensor size = (x - real).abs().mean(1, true);
    EXPECT_TRUE(at::allclose(distribution_matching_gradient(x, real, fake),
                             0.8 / size.expand({2, 2}), 1e-5));
}

TEST(DistributionMatchingGradient, drops_non_finite_entries) {
    Tensor fake = at::ones({2, 2});
    fake[0][1] = std::numeric_limits<float>::quiet_NaN();
    const Tensor gradient =
        distribution_matching_gradient(at::zeros({2, 2}), at::full({2, 2}, 0.5), fake);
    EXPECT_EQ(gradient[0][1].item<float>(), 0);
    EXPECT_NEAR(gradient[0][0].item<float>(), 0.5 / (0.5 + 1e-6), 1e-6);
    // A sample that the teacher does not change has a normaliser of zero; eps keeps the quotient
    // finite.
    EXPECT_TRUE(
        distribution_matching_gradient(at::zeros({1, 2}), at::zeros({1, 2}), at::zeros({1, 2}))
            .isfinite()
            .all()
            .item<bool>());
}

TEST(DistributionMatchingGradient, is_bounded_where_teacher_and_student_nearly_agree) {
    // (fake - real) / (mean|x - real| + 1e-6), both of the magnitude of eps.
    const Tensor real = at::full({1, 4}, 1e-6), fake = at::full({1, 4}, 3e-6);
    EXPECT_TRUE(at::allclose(distribution_matching_gradient(at::zeros({1, 4}), real, fake),
                             at::ones({1, 4}), 1e-4));
}

TEST(DistributionMatchingGradient, reaches_the_samples_divided_by_their_count) {
    const Tensor x = at::randn({3, 4}).set_requires_grad(true), gradient = at::randn({3, 4});
    const Tensor x_gradient = torch::autograd::grad({loss_with_gradient(x, gradient)}, {x})[0];
    EXPECT_TRUE(at::allclose(x_gradient, gradient / 12, 1e-4, 1e-7));
}

TEST(DistributionMatching, each_learner_gets_gradients_of_its_own_loss_alone) {
    Workbench bench({.fake_updates = 2, .adversarial = AdversarialSettings{.gan_weight = 0.1}},
                    true);
    const Loss fake = bench.stage->loss(0, 0, 0, 0), student = bench.stage->loss(1, 0, 0, 0);
    EXPECT_TRUE(any_defined(gradients_of(fake, bench.fake)));
    EXPECT_FALSE(any_defined(gradients_of(bench.stage->loss(0, 0, 0, 0), bench.student)));
    EXPECT_TRUE(any_defined(gradients_of(student, bench.student)));
    EXPECT_FALSE(any_defined(gradients_of(bench.stage->loss(1, 0, 0, 0), bench.fake)));
}

TEST(DistributionMatching, a_loss_is_a_function_of_weights_step_and_inner_step) {
    Workbench bench({.fake_updates = 2}), again({.fake_updates = 2});
    const double first = bench.stage->loss(0, 5, 1, 0).value.item<double>();
    bench.stage->loss(0, 6, 0, 0);
    bench.stage->loss(1, 6, 0, 0);
    EXPECT_EQ(bench.stage->loss(0, 5, 1, 0).value.item<double>(), first);
    EXPECT_EQ(again.stage->loss(0, 5, 1, 0).value.item<double>(), first);
    EXPECT_NE(again.stage->loss(0, 5, 0, 0).value.item<double>(), first);
}

TEST(DistributionMatching, an_automatic_gan_weight_balances_the_two_gradients) {
    Workbench bench(
        {.adversarial = AdversarialSettings{.gan_weight = std::nullopt, .gan_balance = 0.5}}, true);
    const Loss loss = bench.stage->loss(1, 0, 0, 0);
    EXPECT_NEAR(metric(loss.metrics, "gan_gradient") / metric(loss.metrics, "dm_gradient"), 0.5,
                1e-4);
    double& weight = *bench.stage->scalars().at("gan_weight");  // it survives a resume
    EXPECT_EQ(weight, 0) << "a loss changes nothing";
    EXPECT_EQ(bench.stage->loss(1, 0, 0, 0).value.item<double>(), loss.value.item<double>());
    bench.stage->finish_update(1);
    EXPECT_EQ(weight, metric(loss.metrics, "gan_weight"));
    const double first = weight;
    bench.stage->loss(1, 1, 0, 0);
    bench.stage->finish_update(0);
    EXPECT_EQ(weight, first) << "an update of the fake score has no say";
    bench.stage->finish_update(1);
    EXPECT_NE(weight, first);
}

TEST(DistributionMatching, the_gan_term_has_the_gradient_of_its_loss) {
    // The student's gradient with weight 2 minus that with weight 0 must be twice the one with
    // weight 1 minus weight 0.
    const auto at_weight = [](double weight) {
        Workbench bench({.adversarial = AdversarialSettings{.gan_weight = weight}}, true);
        return gradients_of(bench.stage->loss(1, 0, 0, 0), bench.student)[0].clone();
    };
    const Tensor none = at_weight(0), one = at_weight(1), two = at_weight(2);
    EXPECT_GT((one - none).abs().max().item<double>(), 0);
    EXPECT_TRUE(at::allclose(two - none, 2 * (one - none), 1e-3, 1e-7));
}

TEST(DistributionMatching, each_evaluation_of_a_student_of_few_steps_has_its_share_of_updates) {
    // An update of the first evaluation is that of a student of one step.
    constexpr std::int64_t updates = 300;
    Workbench one({}), three({.student_steps = 3});
    for (const std::size_t learner : {0, 1}) {
        double first = 0;
        for (std::int64_t step = 0; step < updates; ++step) {
            first += three.stage->loss(learner, step, 0, 0).value.item<double>() ==
                     one.stage->loss(learner, step, 0, 0).value.item<double>();
        }
        EXPECT_NEAR(first / updates, 1.0 / 3, 4 * std::sqrt(2.0 / 9 / updates)) << learner;
    }
}

/// Nodes of the graph that `value` passes gradients back through.
std::size_t nodes_behind(const Tensor& value) {
    std::set<torch::autograd::Node*> seen;
    std::vector<torch::autograd::Node*> open{value.grad_fn().get()};
    while (!open.empty()) {
        torch::autograd::Node* node = open.back();
        open.pop_back();
        if (node == nullptr || !seen.insert(node).second) continue;
        for (const auto& edge : node->next_edges()) open.push_back(edge.function.get());
    }
    return seen.size();
}

TEST(DistributionMatching, only_the_evaluation_that_an_update_is_about_passes_gradients_back) {
    for (const MatchingLoss kind :
         {MatchingLoss::distribution_matching, MatchingLoss::score_identity}) {
        Workbench one({.loss = kind}), three({.student_steps = 3, .loss = kind});
        for (std::int64_t step = 0; step < 10; ++step)
            EXPECT_EQ(nodes_behind(three.stage->loss(1, step, 0, 0).value),
                      nodes_behind(one.stage->loss(1, step, 0, 0).value));
    }
}

TEST(DistributionMatching, samples_take_all_evaluations) {
    Workbench one({}), three({.student_steps = 3});
    const Tensor z = diffusion::image_noise(5, 0, 4, {2});
    const diffusion::Condition condition{at::eye(3).index_select(0, at::tensor({0, 1, 2, 0}))};
    const at::NoGradGuard no_gradients;
    const Tensor drawn = three.stage->sample(three.student, z, condition);
    EXPECT_FALSE(at::allclose(drawn, one.stage->sample(one.student, z, condition)));
    EXPECT_TRUE(at::equal(drawn, three.stage->sample(three.student, z, condition)));
}

TEST(DistributionMatching, regression_pulls_towards_the_pairs) {
    Workbench with({.regression = PairLoss::pseudo_huber, .regression_weight = 1.0}), without({});
    const Loss loss = with.stage->loss(1, 0, 0, 0);
    const double regression = metric(loss.metrics, "regression");
    EXPECT_NEAR(loss.value.item<double>() - without.stage->loss(1, 0, 0, 0).value.item<double>(),
                regression, 1e-5);
}

TEST(DistributionMatching, score_identity_reaches_the_student_through_both_networks) {
    Workbench bench({.loss = MatchingLoss::score_identity, .sid_alpha = 1.2});
    EXPECT_TRUE(any_defined(gradients_of(bench.stage->loss(1, 0, 0, 0), bench.student)));
}

TEST(DistributionMatching, r1_adds_a_penalty_that_can_be_differentiated) {
    Workbench with({.adversarial = AdversarialSettings{.gan_weight = 0.1, .r1_weight = 10}}, true);
    Workbench without({.adversarial = AdversarialSettings{.gan_weight = 0.1}}, true);
    const Loss loss = with.stage->loss(0, 0, 0, 0);
    EXPECT_GT(loss.value.item<double>(), without.stage->loss(0, 0, 0, 0).value.item<double>());
    EXPECT_TRUE(any_defined(gradients_of(loss, with.fake)));
}

TEST(Divergences, have_the_weights_of_their_formulas_at_mean_one) {
    const Tensor logits = at::tensor({-2.0, 0.0, 1.0, 3.0}, at::kDouble), r = logits.exp();
    const std::map<std::string, Tensor> expected{{"reverse_kl", at::ones_like(r)},
                                                 {"forward_kl", r},
                                                 {"jensen_shannon", r / (1 + r)},
                                                 {"squared_hellinger", r.sqrt()},
                                                 {"softened_reverse_kl", 1 / (1 + r)},
                                                 {"neyman", 1 / r},
                                                 {"jeffreys", 1 + r}};
    EXPECT_EQ(divergences().size(), expected.size());
    for (const auto& [name, h] : expected) {
        EXPECT_TRUE(at::allclose(divergence_weight(name, logits), h / h.mean(), 1e-9)) << name;
    }
}

TEST(Divergences, clamp_extreme_logits_and_pass_no_gradient) {
    const Tensor logits = at::tensor({-1000.0, 1000.0}, at::kDouble).set_requires_grad(true);
    const Tensor weight = divergence_weight("forward_kl", logits);
    EXPECT_TRUE(weight.isfinite().all().item<bool>());
    EXPECT_FALSE(weight.requires_grad());
    EXPECT_THROW(divergence_weight("kullback", logits), core::Error);
}

}  // namespace
}  // namespace atelier::distillation
