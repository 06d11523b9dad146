#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

/// What trials have shown about the number of students, and what follows for another run.
namespace atelier::planning {

/// One set of data, one size of students, one total budget, tried with several numbers of students.
struct Trials {
    std::string set;      // "narrow-spirals"
    std::string samples;  // "points" or "images"
    std::string measure;  // "strays %"; lower is better
    double width = 0, teacher_width = 0;
    /// Samples that all students generated for their updates in DM and ADM, over the number of
    /// conditions: at equal total work the same for any K.
    double samples_per_condition = 0;
    /// By K, one value per seed, in the same order of seeds for every K.
    std::map<std::int64_t, std::vector<double>> values;
    std::map<std::int64_t, std::int64_t> batches;  // by K: that of these values
};

struct Evidence {
    std::string source;  // for people
    std::vector<Trials> trials;
};

/// Reads {"trials": [...]}, as docs/choosing-k.json has it. Throws core::Error, beginning with
/// `where`, on what is missing or wrong.
Evidence evidence_from_json(const nlohmann::json& json, const std::string& where);

/// That of docs/choosing-k.json when the program was built.
Evidence built_in_evidence();

/// What is to be decided.
struct Situation {
    std::string samples;
    double relative_width = 1;  // of students, over the teacher's
    double samples_per_condition = 0;
    std::set<std::int64_t> students;  // the numbers that are possible
};

/// What evidence says about a situation.
struct Verdict {
    std::optional<std::int64_t> students;  // none: it does not say
    std::int64_t batch = 0;                // that of the nearest trials; 0: they do not say
    std::vector<std::string> reasons;      // one line each
};

/// Trials count that were made with the same kind of samples, with between half and twice as many
/// samples per condition, and with students between 2/3 and 3/2 as wide relative to their teacher.
/// In a trial the number of students with the lowest mean is the best, and those are as good that
/// it does not beat in more than three quarters of the seeds. The fewest students that are as good
/// as the best in all such trials are taken; where there are none, there is no verdict.
Verdict judge(const Evidence& evidence, const Situation& situation);

}  // namespace atelier::planning
