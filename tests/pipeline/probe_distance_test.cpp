#include "atelier/pipeline/probe_distance.h"

#include <gtest/gtest.h>

#include <map>

#include "atelier/data/memory_dataset.h"

namespace atelier::pipeline {
namespace {

/// 30,000 points in three classes: 24,000, 5,000 and 1,000 of them, in that order or in another.
std::shared_ptr<const data::Dataset> classes_in_order(bool sorted) {
    std::vector<std::int64_t> labels(30000);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const std::size_t position = sorted ? i : i * 7919 % labels.size();
        labels[i] = position < 24000 ? 0 : position < 29000 ? 1 : 2;
    }
    data::SampleSpec spec;
    spec.kind = data::SampleSpec::Kind::points;
    spec.shape = {2};
    spec.offset = {0, 0};
    return std::make_shared<data::MemoryDataset>(at::zeros({30000, 2}), labels, 3, spec, 0);
}

std::map<std::int64_t, std::int64_t> mix(bool sorted, const std::vector<std::int64_t>& classes) {
    const auto data = classes_in_order(sorted);
    std::map<std::int64_t, std::int64_t> counts;
    for (const std::int64_t i : pipeline::probe_references(*data, classes))
        ++counts[data->labels()[static_cast<std::size_t>(i)]];
    return counts;
}

TEST(ProbeReferences, contain_each_class_in_proportion_in_any_order_of_the_data) {
    for (const bool sorted : {true, false}) {
        const auto all = mix(sorted, {});
        EXPECT_EQ(all.at(0) + all.at(1) + all.at(2), 10000);
        EXPECT_NEAR(static_cast<double>(all.at(1)), 5000.0 / 3, 1) << sorted;
        EXPECT_NEAR(static_cast<double>(all.at(2)), 1000.0 / 3, 1) << sorted;
        EXPECT_EQ(mix(sorted, {1, 2}), (std::map<std::int64_t, std::int64_t>{{1, 5000}, {2, 1000}}))
            << "all of a small cell";
    }
}

}  // namespace
}  // namespace atelier::pipeline
