#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "atelier/conditions/partition.h"
#include "atelier/conditions/prompt_partition.h"
#include "atelier/models/model_directory.h"

namespace atelier::models {

/// An ensemble directory: ensemble.json, and one model directory per student. Its paths are
/// relative, so it may be moved.
struct Ensemble {
    std::filesystem::path directory;
    nlohmann::json manifest;
    std::optional<conditions::PromptPartition>
        prompts;  // if students own prompts; `partition` then holds the number of students only
    conditions::Partition partition;
    conditions::Prior prior;
    data::SampleSpec spec;
    std::vector<std::filesystem::path> students;  // model directories, one per student

    std::filesystem::path teacher() const { return directory / "teacher"; }
    /// The hash of its partition, of classes or of prompts.
    std::string partition_hash() const { return prompts ? prompts->hash() : partition.hash(); }
};

bool is_ensemble_directory(const std::filesystem::path& path);

/// Reads and checks ensemble.json only: its version, and the partition's integrity and hash. Throws
/// core::Error naming the file.
Ensemble read_manifest(const std::filesystem::path& directory);

/// The same; also checks that every student exists.
Ensemble read_ensemble(const std::filesystem::path& directory);

/// Reads student k. Throws core::Error if it was trained for another partition or another cell.
Model read_student(const Ensemble& ensemble, std::int64_t student, at::Device device = at::kCPU,
                   Weights weights = Weights::copied);

/// A student's assignment.
Assignment student_assignment(const conditions::Partition& partition, std::int64_t student);
Assignment student_assignment(const conditions::PromptPartition& partition, std::int64_t student);

/// Throws core::Error, beginning with `where`, unless the card is that of student `student` of the
/// partition with that hash.
void check_assignment(const ModelCard& card, const std::string& partition_hash,
                      std::int64_t student, const std::string& where);

/// Creates an ensemble directory from copies of finished students, atomically; `metrics` are
/// recorded. Throws core::Error if a student belongs to another partition or is missing, the prior
/// does not fit the classes, or the directory exists.
void write_ensemble(const std::filesystem::path& directory, const conditions::Partition& partition,
                    const conditions::Prior& prior,
                    const std::vector<std::filesystem::path>& students,
                    const std::string& teacher_hash, const nlohmann::json& metrics);

/// The same for students that own prompts; `encoder_of` is the directory whose prompt encoder they
/// were trained with.
void write_prompt_ensemble(const std::filesystem::path& directory,
                           const conditions::PromptPartition& partition,
                           const std::filesystem::path& encoder_of,
                           const std::vector<std::filesystem::path>& students,
                           const std::string& teacher_hash, const nlohmann::json& metrics);

/// Writes a copy of an ensemble in which student k is `change(k, student)`, atomically. Metrics of
/// the original are not copied. Throws core::Error if the directory exists.
void write_changed_ensemble(const Ensemble& ensemble, const std::filesystem::path& directory,
                            const std::function<Model(std::int64_t student, Model model)>& change);

}  // namespace atelier::models
