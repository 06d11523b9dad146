#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "atelier/conditions/partition.h"
#include "atelier/conditions/prompt_partition.h"
#include "atelier/models/model_directory.h"

namespace atelier::models {

/// An ensemble directory: ensemble.json, and a model directory a student. Paths in it are relative, so that it may be moved.
struct Ensemble {
    std::filesystem::path directory;
    nlohmann::json manifest;
    std::optional<conditions::PromptPartition> prompts;  // where students own prompts; then `partition` says how many there are, and no more
    conditions::Partition partition;
    conditions::Prior prior;
    DataForm form;
    std::vector<std::filesystem::path> students;  // model directories, a student each

    std::filesystem::path teacher() const { return directory / "teacher"; }
    /// Of its partition, of classes or of prompts.
    std::string partition_hash() const { return prompts ? prompts->hash() : partition.hash(); }
};

bool is_ensemble_directory(const std::filesystem::path& path);

/// Reads and checks ensemble.json alone: its version, that the partition is whole and its hash true. Throws core::Error naming the file.
Ensemble read_manifest(const std::filesystem::path& directory);

/// The same, and that every student is there.
Ensemble read_ensemble(const std::filesystem::path& directory);

/// Reads student k. Throws core::Error when it was trained for another partition or another cell.
Model read_student(const Ensemble& ensemble, std::int64_t student, at::Device device = at::kCPU, Weights weights = Weights::copied);

/// What a student's config.json says of its place: "student", "cell", "partition" (the hash).
nlohmann::json place_of(const conditions::Partition& partition, std::int64_t student);

nlohmann::json place_of(const conditions::PromptPartition& partition, std::int64_t student);

/// Throws core::Error, beginning with `where`, unless `config` names student `student` of the partition with that hash.
void check_place(const nlohmann::json& config, const std::string& partition_hash, std::int64_t student, const std::string& where);

/// Makes an ensemble directory of finished students (copied), atomically; `metrics` and `licence` are recorded. Throws core::Error when a
/// student belongs to another partition or is missing, the prior does not fit the classes, or the directory exists.
void write_ensemble(const std::filesystem::path& directory, const conditions::Partition& partition, const conditions::Prior& prior,
                    const std::vector<std::filesystem::path>& students, const std::string& teacher_hash, const nlohmann::json& metrics);

/// The same for students that own prompts; `encoder_of` is the directory whose prompt encoder they were trained with.
void write_prompt_ensemble(const std::filesystem::path& directory, const conditions::PromptPartition& partition, const std::filesystem::path& encoder_of,
                           const std::vector<std::filesystem::path>& students, const std::string& teacher_hash, const nlohmann::json& metrics);

/// Writes a copy of an ensemble with each student as `change(k, student)` returns it, atomically. What was measured of the first is not said of the
/// copy. Throws core::Error when the directory exists.
void write_changed_ensemble(const Ensemble& ensemble, const std::filesystem::path& directory,
                            const std::function<Model(std::int64_t student, Model model)>& change);

}  // namespace atelier::models
