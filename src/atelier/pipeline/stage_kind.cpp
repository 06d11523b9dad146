#include "atelier/pipeline/stage_kind.h"

#include <fmt/format.h>

#include "atelier/core/error.h"

namespace atelier::pipeline {

std::string name_of(StageKind kind) {
    switch (kind) {
        case StageKind::teacher:
            return "teacher";
        case StageKind::partition:
            return "partition";
        case StageKind::pairs:
            return "pairs";
        case StageKind::tsm:
            return "tsm";
        case StageKind::dm:
            return "dm";
        case StageKind::adm:
            return "adm";
        case StageKind::ensemble:
            return "ensemble";
        case StageKind::evaluation:
            return "evaluation";
        case StageKind::report:
            return "report";
    }
    core::fail("stage {} has no name", static_cast<int>(kind));
}

StageKind stage_kind_of(std::string_view name) {
    for (const StageKind kind : stage_kinds) {
        if (name_of(kind) == name) return kind;
    }
    core::fail("there is no stage \"{}\"", name);
}

std::string student_name(std::int64_t student) {
    return student == trunk ? "trunk" : fmt::format("student {}", student);
}

std::string students_folder(std::optional<std::int64_t> student) {
    if (student == trunk) return "trunk";
    return student ? fmt::format("students/{}", *student) : "students";
}

std::string stage_path(StageKind kind, std::optional<std::int64_t> student) {
    if (student) return students_folder(student) + "/" + name_of(kind);
    if (kind == StageKind::evaluation) return "evaluation.json";
    if (kind == StageKind::report) return "report.html";
    return name_of(kind);
}

}  // namespace atelier::pipeline
