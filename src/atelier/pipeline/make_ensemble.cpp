#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/models/ensemble.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/stages.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;

/// The folder of a student's last stage.
fs::path student_path(const RunContext& context, std::int64_t student) {
    return context.path_of(last_student_stage(context.config()), student);
}

/// Throws core::Error where the existing ensemble holds students that were trained again since.
void check_ensemble(RunContext& context, const fs::path& folder) {
    const auto made = fs::last_write_time(folder / "ensemble.json");
    const models::Ensemble ensemble = models::read_ensemble(folder);
    for (std::size_t k = 0; k < ensemble.students.size(); ++k) {
        const fs::path student = student_path(context, static_cast<std::int64_t>(k)),
                       weights = "model.safetensors";
        if (!fs::exists(student / weights) || fs::last_write_time(student / "stage.json") <= made)
            continue;
        if (core::sha256_of_file(student / weights) ==
            core::sha256_of_file(ensemble.students[k] / weights))
            continue;
        core::fail(
            "{}: holds another student {} than {}, which was trained again since; delete it to "
            "make it again: rm -r {}",
            folder.string(), k, student.string(), folder.string());
    }
}

}  // namespace

bool student_finished(const RunContext& context, std::int64_t student) {
    return training::StageFolder::is_finished(student_path(context, student));
}

void make_ensemble(RunContext& context) {
    const fs::path folder = context.path_of(StageKind::ensemble);
    if (models::is_ensemble_directory(folder)) return check_ensemble(context, folder);
    const Split& split = context.split();
    std::vector<fs::path> students;
    for (std::int64_t k = 0; k < split.owners.students; ++k) {
        if (!student_finished(context, k)) {
            core::fail("{}: student {} is not finished; run: atelier distill {} --student {}",
                       context.output().string(), k, context.loaded().path, k);
        }
        students.push_back(student_path(context, k));
    }
    const std::string& teacher = context.teacher_hash();
    if (split.prompts)
        models::write_prompt_ensemble(folder, *split.prompts, context.path_of(StageKind::teacher),
                                      students, teacher, nlohmann::json::object());
    else
        models::write_ensemble(folder, split.owners, data::prior_of(*context.data()), students,
                               teacher, nlohmann::json::object());
    core::log::info("ensemble: {} students at {}", students.size(), folder.string());
}

}  // namespace atelier::pipeline
