#pragma once

#include <optional>
#include <string>

#include "atelier/pipeline/run_context.h"

namespace atelier::pipeline {

/// Writes the result of a training loop: the weights, those without averaging, and further
/// averages. config.json says which file holds which.
void write_result(const std::filesystem::path& folder, models::Model& model,
                  const training::LoopResult& result,
                  const distillation::Optimization& optimization);

/// The config.json of student `student`: the teacher's, with the width, depth and levels in
/// `sizes`.
nlohmann::json student_config(nlohmann::json teacher, const StudentsConfig& sizes,
                              std::int64_t student);
/// Whether a network of one config can start from the weights of the other.
bool same_size(const nlohmann::json& student, const nlohmann::json& teacher);
/// Whether a student with that config.json is trained by teacher score matching first.
bool needs_tsm(const nlohmann::json& student, const nlohmann::json& teacher,
               const RunConfig& config);

/// Each makes its part of the run unless that is finished, resuming where it was interrupted.
void make_teacher(RunContext& context);
Split make_partition(RunContext& context);
void make_pairs(RunContext& context);
/// The labels that the run's pairs will have, in order.
std::vector<std::int64_t> pair_labels(const RunConfig& config, const conditions::Prior& prior);
/// Trains one student in stage `kind` (tsm, dm, adm); TSM says why it is not needed where it is
/// not.
void make_student(RunContext& context, std::int64_t student, StageKind kind);
/// Whether the last of its stages is finished.
bool student_finished(const RunContext& context, std::int64_t student);
void make_ensemble(RunContext& context);
void make_evaluation(RunContext& context);
void make_report(RunContext& context);
/// One page about several folders of models (runs, or folders such as models/fashion-mnist).
void report_on(const std::vector<std::string>& folders, const std::filesystem::path& out);

}  // namespace atelier::pipeline
