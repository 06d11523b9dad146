#include "atelier/metrics/sample_counts.h"

#include <algorithm>

#include <fmt/format.h>

#include "atelier/metrics/inception.h"

namespace atelier::metrics {

std::vector<std::string> too_few_for(const FeatureSpace& space, const Protocol& protocol,
                                     std::int64_t reference) {
    std::vector<std::string> lines;
    const std::string frechet = frechet_name(space.kind()), kernel = kernel_name(space.kind());
    const std::int64_t count = protocol.count,
                       smaller = reference > 0 ? std::min(count, reference) : count;
    const char* which = smaller < count ? "real images" : "samples";
    if (smaller < space.width())
        lines.push_back(fmt::format(
            "{} is taken from {} {} with {} features each: it is mostly bias with fewer {} than "
            "features; compare it at this count only, and {}, which has no such bias",
            frechet, smaller, which, space.width(), which, kernel));
    if (reference > 0 && smaller < protocol.kernel_subset_size)
        lines.push_back(fmt::format(
            "{} is taken from subsets of {} instead of {}, since there are no more {}: it has no "
            "bias, but differs more by chance",
            kernel, smaller, protocol.kernel_subset_size, which));
    constexpr std::int64_t enough = 1000;  // the fewest of which MIND's authors show figures
    if (reference > 0 && smaller < enough)
        lines.push_back(fmt::format(
            "{} is taken from {} {}: with so few it is well above 0 even for one distribution; "
            "compare it at this count only",
            monge_name(space.kind()), smaller, which));
    const std::int64_t part = count / std::max<std::int64_t>(1, protocol.score_splits);
    if (space.kind() == FeatureSpace::Kind::inception && 2 * part < Inception::classes)
        lines.push_back(fmt::format(
            "inception_score is taken from {} parts of {} samples, of {} classes: it is too low "
            "with so few; ask for {} samples or more",
            protocol.score_splits, part, Inception::classes,
            protocol.score_splits * Inception::classes));
    return lines;
}

std::vector<std::string> too_few_for_modes(const Protocol& protocol, std::int64_t modes) {
    constexpr std::int64_t enough = 20;
    if (protocol.count >= enough * modes) return {};
    return {
        fmt::format("worst_mode and modes_reached are taken from {} samples of {} modes: with so "
                    "few they are mostly chance; ask for {} or more",
                    protocol.count, modes, enough * modes)};
}

}  // namespace atelier::metrics
