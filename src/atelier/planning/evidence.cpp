#include "atelier/planning/evidence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/whole_number.h"
#include "atelier/planning/evidence_file.h"
#include "atelier/planning/figures.h"

namespace atelier::planning {

namespace {

constexpr double near_samples = 2, near_width = 1.5;  // factors
constexpr double clear = 0.75;                        // of the seeds

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Trials trials_from(const nlohmann::json& json, const std::string& where) {
    constexpr double most = 1e15;
    const core::JsonObject object(json, where);
    Trials trials{.set = object.text("set"),
                  .samples = object.text("samples"),
                  .measure = object.text("measure"),
                  .width = object.number("width", 1, most),
                  .teacher_width = object.number("teacher_width", 1, most),
                  .samples_per_condition = object.number("samples_per_condition", 1, most)};
    if (trials.samples != "points" && trials.samples != "images")
        core::fail("{}: \"samples\" is \"{}\", not points or images", where, trials.samples);
    const core::JsonObject values = object.object("values");
    std::size_t seeds = 0;
    for (const auto& [name, unused] : values.json().items()) {
        const auto students = core::whole_number(name);
        const std::vector<double> each = values.numbers(name);
        if (!students || *students < 1)
            core::fail("{}: \"values\" are by numbers of students, not \"{}\"", where, name);
        if (each.empty() || (seeds > 0 && each.size() != seeds))
            core::fail("{}: every number of students needs a value for each of the same seeds",
                       where);
        seeds = each.size();
        trials.values[*students] = each;
    }
    if (trials.values.size() < 2)
        core::fail("{}: trials compare at least two numbers of students", where);
    if (!object.has("batch")) return trials;
    const core::JsonObject batches = object.object("batch");
    for (const auto& [students, unused] : trials.values)
        trials.batches[students] =
            batches.integer(std::to_string(students), 1, std::int64_t{1} << 40);
    return trials;
}

double factor(double a, double b) { return a > b ? a / b : b / a; }

double samples_apart(const Trials& trials, const Situation& situation) {
    return factor(trials.samples_per_condition, situation.samples_per_condition);
}

double width_apart(const Trials& trials, const Situation& situation) {
    return factor(trials.width / trials.teacher_width, situation.relative_width);
}

bool is_near(const Trials& trials, const Situation& situation) {
    return samples_apart(trials, situation) <= near_samples &&
           width_apart(trials, situation) <= near_width;
}

/// The mean, spread and seeds of one number of students.
std::string describe(const std::vector<double>& values) {
    const auto [least, most] = std::ranges::minmax_element(values);
    return values.size() == 1 ? fmt::format("{:.3g} (one seed)", values[0])
                              : fmt::format("{:.3g} ({:.3g} to {:.3g} in {} seeds)", mean(values),
                                            *least, *most, values.size());
}

/// "narrow-spirals, students 8 wide of a teacher's 64, 51.2 k samples per condition".
std::string describe(const Trials& trials) {
    return fmt::format("{}, students {:g} wide of a teacher's {:g}, {} samples per condition",
                       trials.set, trials.width, trials.teacher_width,
                       format_quantity(trials.samples_per_condition));
}

/// The possible number of students with the lowest mean.
std::int64_t best_of(const Trials& trials, const std::set<std::int64_t>& possible) {
    std::int64_t best = 0;
    double lowest = std::numeric_limits<double>::infinity();
    for (const auto& [students, values] : trials.values) {
        if (!possible.contains(students) || mean(values) >= lowest) continue;
        best = students;
        lowest = mean(values);
    }
    return best;
}

/// In how many seeds one number of students is lower than another.
std::size_t wins(const Trials& trials, std::int64_t of, std::int64_t over) {
    const std::vector<double>&a = trials.values.at(of), &b = trials.values.at(over);
    std::size_t count = 0;
    for (std::size_t seed = 0; seed < a.size(); ++seed) count += a[seed] < b[seed];
    return count;
}

/// What a trial names: the possible numbers of students that are as good as the best, and why.
struct Finding {
    std::set<std::int64_t> as_good;
    std::string reason;
};

Finding finding_of(const Trials& trials, const std::set<std::int64_t>& possible) {
    const std::int64_t best = best_of(trials, possible);
    Finding finding;
    std::vector<std::string> values, comparisons;
    for (const auto& [students, each] : trials.values) {
        values.push_back(fmt::format("K={} {}", students, describe(each)));
        if (!possible.contains(students)) continue;
        const std::size_t won = wins(trials, best, students);
        const bool tie = students == best ||
                         static_cast<double>(won) <= clear * static_cast<double>(each.size());
        if (tie) finding.as_good.insert(students);
        if (students != best)
            comparisons.push_back(fmt::format("than K={} in {} of {} seeds{}", students, won,
                                              each.size(), tie ? ", no clear difference" : ""));
    }
    finding.reason = fmt::format("{}: {} {}; K={} is lower {}", describe(trials), trials.measure,
                                 fmt::join(values, ", "), best, fmt::join(comparisons, ", "));
    return finding;
}

}  // namespace

Evidence evidence_from_json(const nlohmann::json& json, const std::string& where) {
    const core::JsonObject object(json, where);
    if (!object.has("trials") || !json.at("trials").is_array())
        core::fail("{}: has no list of \"trials\"", where);
    Evidence evidence{.source = where};
    for (const nlohmann::json& each : json.at("trials"))
        evidence.trials.push_back(
            trials_from(each, fmt::format("{}: trials[{}]", where, evidence.trials.size())));
    return evidence;
}

Evidence built_in_evidence() {
    return evidence_from_json(nlohmann::json::parse(evidence_file()), "docs/choosing-k.json");
}

Verdict judge(const Evidence& evidence, const Situation& situation) {
    Verdict verdict;
    std::vector<const Trials*> of_kind, near;
    for (const Trials& trials : evidence.trials) {
        const bool comparable = std::ranges::count_if(trials.values, [&](const auto& each) {
                                    return situation.students.contains(each.first);
                                }) >= 2;
        if (trials.samples != situation.samples || !comparable) continue;
        of_kind.push_back(&trials);
        if (is_near(trials, situation)) near.push_back(&trials);
    }
    if (of_kind.empty()) {
        verdict.reasons.push_back(
            fmt::format("{} has no trials with {}", evidence.source, situation.samples));
        return verdict;
    }
    if (near.empty()) {
        const Trials& nearest = **std::ranges::min_element(of_kind, {}, [&](const Trials* trials) {
            return std::log(samples_apart(*trials, situation)) +
                   std::log(width_apart(*trials, situation));
        });
        verdict.reasons.push_back(fmt::format(
            "{} has no trials near {} samples per condition and {:.3g} of the teacher's width; the "
            "nearest, {}, is a factor of {:.3g} and {:.3g} away",
            evidence.source, format_quantity(situation.samples_per_condition),
            situation.relative_width, describe(nearest), samples_apart(nearest, situation),
            width_apart(nearest, situation)));
        return verdict;
    }
    std::set<std::int64_t> named = situation.students;
    for (const Trials* trials : near) {
        const Finding finding = finding_of(*trials, situation.students);
        std::erase_if(named, [&](std::int64_t k) { return !finding.as_good.contains(k); });
        verdict.reasons.push_back(finding.reason);
    }
    if (named.empty()) {
        verdict.reasons.emplace_back("these trials disagree");
        return verdict;
    }
    verdict.students = *named.begin();
    if (named.size() > 1)
        verdict.reasons.push_back(fmt::format(
            "K = {} are equally good; the fewest students are taken", fmt::join(named, " and ")));
    const Trials& nearest = **std::ranges::min_element(
        near, {}, [&](const Trials* trials) { return samples_apart(*trials, situation); });
    if (const auto found = nearest.batches.find(*verdict.students); found != nearest.batches.end())
        verdict.batch = found->second;
    return verdict;
}

}  // namespace atelier::planning
