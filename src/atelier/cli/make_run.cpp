#include <ATen/Parallel.h>

#include "atelier/cli/preflight.h"
#include "atelier/cli/stages.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/models/ensemble.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

/// The last stage that the config has every student go through.
std::string last_stage(const RunConfig& config) {
    if (config.adm.steps > 0) return "adm";
    if (config.dm.steps > 0) return "dm";
    throw core::UsageError("dm.steps and adm.steps are both 0; a student needs at least one of the stages");
}

/// Every student as a process of this program, so that they share neither threads nor memory.
void students_side_by_side(Workshop& workshop) {
    std::vector<std::vector<std::string>> commands;
    for (std::int64_t k = 0; k < workshop.config().partition.students; ++k) {
        std::vector<std::string> command{fs::read_symlink("/proc/self/exe").string(), "distill", workshop.loaded().path};
        command.insert(command.end(), workshop.loaded().overrides.begin(), workshop.loaded().overrides.end());
        // What was said once need not be said by each.
        const RunConfig& config = workshop.config();
        command.push_back(fmt::format("threads={}", config.threads));
        command.push_back(fmt::format("students.threads={}", config.students.threads));
        command.push_back(fmt::format("students.parallel={}", config.students.parallel));
        if (config.evaluation.classifier.empty()) command.push_back("evaluate.classifier=");
        command.insert(command.end(), {"--student", std::to_string(k), "--checked"});
        commands.push_back(std::move(command));
    }
    core::run_processes(commands, static_cast<int>(workshop.config().students.parallel));
}

bool student_finished(Workshop& workshop, std::int64_t student) {
    const fs::path folder = workshop.output() / fmt::format("students/{}/{}", student, last_stage(workshop.config()));
    return fs::exists(folder / "stage.json") && core::read_json(folder / "stage.json").value("status", "") == "finished";
}

void make_students(Workshop& workshop) {
    const std::int64_t students = workshop.config().partition.students;
    bool missing = false;
    for (std::int64_t k = 0; k < students; ++k) missing = missing || !student_finished(workshop, k);
    if (missing && workshop.config().students.parallel > 1 && students > 1) {
        students_side_by_side(workshop);
        return;
    }
    for (std::int64_t k = 0; k < students; ++k) make_student(workshop, k);
    at::set_num_threads(static_cast<int>(workshop.config().threads));
}

/// The ensemble that is there holds the students as they are now.
void check_ensemble(Workshop& workshop, const fs::path& folder) {
    const auto made = fs::last_write_time(folder / "ensemble.json");
    const models::Ensemble ensemble = models::read_ensemble(folder);
    for (std::size_t k = 0; k < ensemble.students.size(); ++k) {
        const fs::path student = workshop.output() / fmt::format("students/{}/{}", k, last_stage(workshop.config())), weights = "model.safetensors";
        if (!fs::exists(student / weights) || fs::last_write_time(student / "stage.json") <= made) continue;
        if (core::sha256_of_file(student / weights) == core::sha256_of_file(ensemble.students[k] / weights)) continue;
        core::fail("{}: holds another student {} than {}, which was trained again since; have it made again: rm -r {}", folder.string(), k, student.string(), folder.string());
    }
}

}  // namespace

void make_ensemble(Workshop& workshop) {
    const fs::path folder = workshop.output() / "ensemble";
    if (models::is_ensemble_directory(folder)) return check_ensemble(workshop, folder);
    const Split split = make_partition(workshop);
    std::vector<fs::path> students;
    for (std::int64_t k = 0; k < split.owners.students; ++k) {
        if (!student_finished(workshop, k)) {
            core::fail("{}: student {} is not finished; run: atelier distill {} --student {}", workshop.output().string(), k,
                       workshop.loaded().path, k);
        }
        students.push_back(workshop.output() / fmt::format("students/{}/{}", k, last_stage(workshop.config())));
    }
    const std::string& teacher = workshop.teacher_hash();
    if (split.prompts) models::write_prompt_ensemble(folder, *split.prompts, workshop.output() / "teacher", students, teacher, nlohmann::json::object());
    else models::write_ensemble(folder, split.owners, data::prior_of(*workshop.data()), students, teacher, nlohmann::json::object());
    core::log::info("ensemble: {} students at {}", students.size(), folder.string());
}

void make_everything(Workshop& workshop) {
    last_stage(workshop.config());
    make_teacher(workshop);
    const Split split = make_partition(workshop);
    check_cells(workshop.config(), split.owners, *workshop.raw_data());
    make_pairs(workshop);
    make_students(workshop);
    make_ensemble(workshop);
    make_evaluation(workshop);
    make_report(workshop);
}

}  // namespace atelier::cli
