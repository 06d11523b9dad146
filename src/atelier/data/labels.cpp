#include "atelier/data/labels.h"

#include <algorithm>
#include <vector>

#include "atelier/core/error.h"

namespace atelier::data {

namespace {

void expect_not_negative(std::span<const std::int64_t> labels, const std::string& where) {
    const auto bad =
        std::find_if(labels.begin(), labels.end(), [](std::int64_t label) { return label < 0; });
    if (bad != labels.end())
        core::fail("{}: the label of row {} is {}; labels begin at 0", where, bad - labels.begin(),
                   *bad);
}

}  // namespace

std::int64_t count_classes(std::span<const std::int64_t> labels, const std::string& where) {
    if (labels.empty()) return 0;
    expect_not_negative(labels, where);
    const std::int64_t largest = *std::max_element(labels.begin(), labels.end());
    // With n labels, one of the classes 0 to n-1 is missing if the largest label is n or more, so
    // there is no need to count up to it.
    std::vector<bool> occurs(
        static_cast<std::size_t>(std::min(largest, static_cast<std::int64_t>(labels.size()) - 1)) +
        1);
    for (const std::int64_t label : labels) {
        if (label < static_cast<std::int64_t>(occurs.size()))
            occurs[static_cast<std::size_t>(label)] = true;
    }
    const auto missing = std::find(occurs.begin(), occurs.end(), false);
    if (missing != occurs.end()) {
        core::fail(
            "{}: class {} has no sample, although labels go up to {}; number the classes without "
            "gaps from 0",
            where, missing - occurs.begin(), largest);
    }
    return largest + 1;
}

std::int64_t count_classes_with_gaps(std::span<const std::int64_t> labels,
                                     const std::string& where) {
    constexpr std::int64_t most_classes = 1'000'000;
    if (labels.empty()) return 0;
    expect_not_negative(labels, where);
    const auto largest = std::max_element(labels.begin(), labels.end());
    if (*largest >= most_classes)
        core::fail("{}: the label of row {} is {}; at most {} classes are read", where,
                   largest - labels.begin(), *largest, most_classes);
    return *largest + 1;
}

void check_labels(std::span<const std::int64_t> labels, std::int64_t classes,
                  const std::string& where) {
    expect_not_negative(labels, where);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        if (labels[i] >= classes)
            core::fail("{}: the label of row {} is {}; there are {} classes", where, i, labels[i],
                       classes);
    }
}

}  // namespace atelier::data
