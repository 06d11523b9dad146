#pragma once

#include <optional>
#include <string>

#include "atelier/cli/workshop.h"
#include "atelier/models/ensemble.h"

namespace atelier::cli {

/// Writes what a loop made of `model`: its weights, those without an average, further averages; config.json says which file holds which.
void write_result(const std::filesystem::path& folder, models::Model& model, const training::LoopResult& result, const distillation::Optimization& optimization);

/// The config.json of student `student`: the teacher's, with the width, depth and levels that `sizes` give it.
nlohmann::json sized(nlohmann::json teacher, const StudentsConfig& sizes, std::int64_t student);
/// Whether a network of one config can start from the weights of the other.
bool same_size(const nlohmann::json& student, const nlohmann::json& teacher);
/// Whether a student of that config.json goes through teacher score matching first.
bool needs_tsm(const nlohmann::json& student, const nlohmann::json& teacher, const RunConfig& config);

/// Who owns what: classes or captions by their numbers, and of captions also what prompts that nobody has seen go by.
struct Split {
    conditions::Partition owners;
    std::optional<conditions::PromptPartition> prompts;

    nlohmann::json place_of(std::int64_t student) const { return prompts ? models::place_of(*prompts, student) : models::place_of(owners, student); }
};

/// Each makes its part of the run unless it is there already, resuming what was begun.
void make_teacher(Workshop& workshop);
Split make_partition(Workshop& workshop);
void make_pairs(Workshop& workshop);
/// The labels that the run's pairs will have, in their order.
std::vector<std::int64_t> pair_labels(const RunConfig& config, const conditions::Prior& prior);
/// Trains one student through its stages, or only `stage` (tsm, dm, adm).
void make_student(Workshop& workshop, std::int64_t student, const std::optional<std::string>& stage = std::nullopt);
void make_ensemble(Workshop& workshop);
void make_evaluation(Workshop& workshop);
void make_report(Workshop& workshop);
/// One page about several folders of models (runs, or shelves such as models/fashion-mnist).
void report_on(const std::vector<std::string>& folders, const std::filesystem::path& out);

/// All of the above, students one by one or side by side as the config says.
void make_everything(Workshop& workshop);

}  // namespace atelier::cli
