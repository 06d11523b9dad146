#include "atelier/diffusion/condition_table.h"

#include <gtest/gtest.h>

#include "atelier/diffusion/guidance.h"
#include "backends/tensors.h"

namespace atelier::diffusion {
namespace {

const std::vector<std::int64_t> some{1, -1, 0};

TEST(ConditionTable, classes_are_one_hot_and_no_class_is_all_zeros) {
    const Tensor labels = ConditionTable::classes(2).of(some).labels;
    EXPECT_TRUE(labels.equal(at::tensor({0.0F, 1.0F, 0.0F, 0.0F, 1.0F, 0.0F}).view({3, 2})));
    EXPECT_FALSE(ConditionTable::classes(0).of(some).labels.defined());
}

TEST(ConditionTable, embeddings_are_rows_and_no_condition_has_its_own) {
    const auto table = ConditionTable::embeddings(at::tensor({1.0F, 2.0F, 3.0F, 4.0F}).view({2, 2}),
                                                  at::tensor({9.0F, 9.0F}));
    EXPECT_EQ(table.size(), 2);
    EXPECT_TRUE(
        table.of(some).labels.equal(at::tensor({3.0F, 4.0F, 9.0F, 9.0F, 1.0F, 2.0F}).view({3, 2})));
}

TEST(ConditionTable, stored_rows_are_requested_and_no_condition_has_its_own) {
    std::vector<std::int64_t> requested;
    const auto rows = [&](std::span<const std::int64_t> indices) {
        requested.assign(indices.begin(), indices.end());
        return at::tensor(requested, at::kFloat).view({-1, 1, 1}).expand({-1, 2, 3});
    };
    const auto table = ConditionTable::stored(2, rows, at::full({2, 3}, 9.0F));
    const Tensor labels = table.of(some).labels;
    EXPECT_EQ(requested, (std::vector<std::int64_t>{1, 0}));
    EXPECT_EQ(labels.sizes().vec(), (graph::Shape{3, 2, 3}));
    EXPECT_TRUE(labels.select(1, 0).select(1, 0).equal(at::tensor({1.0F, 9.0F, 0.0F})));
    const std::int64_t none = -1;
    EXPECT_TRUE(table.of({&none, 1}).labels.equal(at::full({1, 2, 3}, 9.0F)));
    EXPECT_FALSE(backends::error_of([&] { table.of(std::vector<std::int64_t>{2}); }).empty());
}

TEST(ConditionTable, texts_are_ids) {
    const auto table = ConditionTable::texts(at::tensor({5, 6, 7, 8}, at::kLong).view({2, 2}),
                                             at::tensor({0, 0}, at::kLong));
    const Condition condition = table.of(some);
    EXPECT_FALSE(condition.labels.defined());
    EXPECT_TRUE(condition.ids.equal(at::tensor({7, 8, 0, 0, 5, 6}, at::kLong).view({3, 2})));
    EXPECT_TRUE(condition.rows(1, 2).ids.equal(condition.ids.narrow(0, 1, 2)));
}

TEST(ConditionTable, a_label_out_of_range_is_named) {
    for (const std::int64_t bad : {-2, 2}) {
        const std::vector<std::int64_t> indices{bad};
        backends::expect_contains(
            backends::error_of([&] { ConditionTable::classes(2).of(indices); }),
            fmt::format("condition {}", bad));
    }
}

/// Returns the sum of the labels, whatever the samples.
class SumOfLabels : public Denoiser {
public:
    Tensor denoise(const Tensor& x_t, const Tensor&, const Condition& condition) const override {
        return condition.labels.sum(1, true).expand_as(x_t).clone();
    }
};

TEST(GuidedDenoiser, extrapolates_away_from_no_condition) {
    const auto inner = std::make_shared<SumOfLabels>();
    const Tensor x = at::zeros({2, 3}), sigma = at::ones({2});
    const Condition condition{at::tensor({1.0F, 1.0F, 4.0F, 0.0F}).view({2, 2})};  // gives 2 and 4
    const Tensor none = at::tensor({0.5F, 0.5F}).view({1, 2});                     // gives 1
    for (const double scale : {0.0, 1.0, 1.75}) {
        const Tensor guided = GuidedDenoiser(inner, none, scale).denoise(x, sigma, condition);
        EXPECT_NEAR(guided[0][0].item<double>(), 1 + scale * 1, 1e-6);
        EXPECT_NEAR(guided[1][2].item<double>(), 1 + scale * 3, 1e-6);
    }
}

}  // namespace
}  // namespace atelier::diffusion
