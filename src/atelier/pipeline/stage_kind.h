#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::pipeline {

/// The kinds of stages, in the order in which a run does them.
enum class StageKind {
    teacher,
    partition,
    pairs,
    tsm,
    dm,
    adm,
    ensemble,
    evaluation,
    report,
};

inline constexpr std::array stage_kinds{
    StageKind::teacher,  StageKind::partition,  StageKind::pairs,
    StageKind::tsm,      StageKind::dm,         StageKind::adm,
    StageKind::ensemble, StageKind::evaluation, StageKind::report};

/// Those of every student.
inline constexpr std::array student_stage_kinds{StageKind::tsm, StageKind::dm, StageKind::adm};

/// Stands for a student's number in the stages of the trunk: the student of all conditions from
/// which the others branch.
inline constexpr std::int64_t trunk = -1;

/// "student 2", or "trunk": for messages.
std::string student_name(std::int64_t student);

/// "teacher", "dm": in configs, folders, logs and on command lines.
std::string name_of(StageKind kind);

/// The stage of that name. Throws core::Error if there is none.
StageKind stage_kind_of(std::string_view name);

/// What a stage makes, a folder or a file under the run's directory: "teacher",
/// "report.html"; of a student "students/0/dm", of the trunk "trunk/dm".
std::string stage_path(StageKind kind, std::optional<std::int64_t> student = std::nullopt);

/// The folder of one student's stages, of the trunk's, or of all students'.
std::string students_folder(std::optional<std::int64_t> student = std::nullopt);

}  // namespace atelier::pipeline
