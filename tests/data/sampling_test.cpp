#include "atelier/data/sampling.h"

#include <algorithm>
#include <map>
#include <set>

#include "atelier/core/random_streams.h"
#include "atelier/data/memory_dataset.h"
#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

std::map<std::int64_t, std::int64_t> counts(const std::vector<std::int64_t>& sample,
                                            const std::vector<std::int64_t>& labels) {
    std::map<std::int64_t, std::int64_t> all;
    for (const std::int64_t i : sample) ++all[labels.at(static_cast<std::size_t>(i))];
    return all;
}

/// 700 of class 0, 200 of class 1, 100 of class 2, in that order.
std::vector<std::int64_t> sorted_labels() {
    std::vector<std::int64_t> labels(1000, 0);
    std::fill(labels.begin() + 700, labels.begin() + 900, 1);
    std::fill(labels.begin() + 900, labels.end(), 2);
    return labels;
}

TEST(StratifiedSample, of_sorted_labels_has_every_class_by_its_share) {
    const auto labels = sorted_labels();
    for (const std::uint64_t seed : {0, 1, 2, 3}) {
        const auto sample = stratified_sample(labels, 1000, 100, seed, "test");
        EXPECT_EQ(counts(sample, labels),
                  (std::map<std::int64_t, std::int64_t>{{0, 70}, {1, 20}, {2, 10}}))
            << seed;
    }
    const auto uneven = counts(stratified_sample(labels, 1000, 33, 0, "test"), labels);
    EXPECT_NEAR(static_cast<double>(uneven.at(0)), 23.1, 1);
    EXPECT_NEAR(static_cast<double>(uneven.at(2)), 3.3, 1);
}

TEST(StratifiedSample, has_the_same_mix_in_whatever_order_the_data_lie) {
    const auto labels = sorted_labels();
    std::vector<std::int64_t> shuffled;
    for (const std::int64_t i : core::RandomStream(7, "order").permutation(1000))
        shuffled.push_back(labels[static_cast<std::size_t>(i)]);
    EXPECT_EQ(counts(stratified_sample(shuffled, 1000, 130, 4, "test"), shuffled),
              counts(stratified_sample(labels, 1000, 130, 4, "test"), labels));
}

TEST(StratifiedSample, takes_different_members_of_each_class_by_the_seed_and_from_all_of_it) {
    const auto labels = sorted_labels();
    const auto a = stratified_sample(labels, 1000, 100, 1, "test"),
               b = stratified_sample(labels, 1000, 100, 2, "test");
    EXPECT_EQ(a, stratified_sample(labels, 1000, 100, 1, "test"));
    EXPECT_NE(a, b);
    EXPECT_NE(a, stratified_sample(labels, 1000, 100, 1, "another name"));
    EXPECT_TRUE(std::ranges::is_sorted(a));
    EXPECT_EQ(std::set<std::int64_t>(a.begin(), a.end()).size(), 100U);
    const auto in_first_half = std::ranges::count_if(a, [](std::int64_t i) { return i < 350; });
    EXPECT_GT(in_first_half, 20);
    EXPECT_LT(in_first_half, 50);
}

TEST(StratifiedSample, of_more_classes_than_samples_does_not_prefer_the_first_classes) {
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < 3000; ++i) labels.push_back(i / 3);  // 1000 classes of three
    for (const std::int64_t count : {100, 1500}) {
        const auto sample = stratified_sample(labels, 3000, count, 0, "test");
        const auto low = std::ranges::count_if(sample, [](std::int64_t i) { return i < 1500; });
        EXPECT_NEAR(static_cast<double>(low), static_cast<double>(count) / 2, 1) << count;
    }
}

TEST(StratifiedSample, of_unlabelled_data_comes_from_everywhere_and_of_few_is_all) {
    const auto sample = stratified_sample({}, 10000, 1000, 0, "test");
    double mean = 0;
    for (const std::int64_t i : sample) mean += static_cast<double>(i) / 1000;
    EXPECT_NEAR(mean, 5000, 300);
    EXPECT_EQ(stratified_sample({}, 3, 3, 0, "test"), (std::vector<std::int64_t>{0, 1, 2}));
    EXPECT_EQ(stratified_sample({}, 3, 10, 0, "test"), (std::vector<std::int64_t>{0, 1, 2}));
    EXPECT_TRUE(stratified_sample({}, 3, 0, 0, "test").empty());
}

std::shared_ptr<const Dataset> numbers(std::int64_t count) {
    data::SampleSpec spec;
    spec.kind = data::SampleSpec::Kind::points;
    spec.shape = {2};
    spec.offset = {0, 0};
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < count; ++i) labels.push_back(i >= count / 2);
    return std::make_shared<MemoryDataset>(
        at::arange(0, count, at::kFloat).unsqueeze(1).expand({count, 2}).contiguous(), labels, 2,
        spec, 0);
}

TEST(SeededSample, of_some_of_a_data_sets_samples_stays_among_them) {
    const auto data = numbers(40);
    const std::vector<std::int64_t> even = [] {
        std::vector<std::int64_t> all;
        for (std::int64_t i = 0; i < 40; i += 2) all.push_back(i);
        return all;
    }();
    const auto sample = seeded_sample(*data, even, 10, 0, "test");
    EXPECT_EQ(sample.size(), 10U);
    for (const std::int64_t i : sample) EXPECT_EQ(i % 2, 0);
    EXPECT_EQ(std::ranges::count_if(sample, [](std::int64_t i) { return i < 20; }), 5);
    EXPECT_EQ(seeded_sample(*data, even, 100, 0, "test"), even);
}

TEST(Subset, is_those_samples_without_their_labels) {
    const auto some = subset(numbers(10), {7, 1});
    EXPECT_EQ(some->size(), 2);
    EXPECT_EQ(some->classes(), 0);
    EXPECT_TRUE(some->labels().empty());
    const std::vector<std::int64_t> turned{1, 0};
    EXPECT_TRUE(at::equal(some->samples(turned).select(1, 0), at::tensor({1.0F, 7.0F})));
    EXPECT_NE(some->hash(), numbers(10)->hash());
    EXPECT_NE(some->hash(), subset(numbers(10), {1, 7})->hash());
    EXPECT_TRUE(holds(message_of([&] { subset(numbers(10), {10}); }), "no sample 10"));
}

TEST(SamplesPerBatch, are_fewer_where_they_are_larger) {
    EXPECT_EQ(samples_per_batch(std::vector<std::int64_t>{1, 28, 28}, 2000), 2000);
    EXPECT_EQ(samples_per_batch(std::vector<std::int64_t>{3, 512, 512}, 2000), 42);
    EXPECT_EQ(samples_per_batch(std::vector<std::int64_t>{3, 8192, 8192}, 2000), 1);
}

}  // namespace
}  // namespace atelier::data
