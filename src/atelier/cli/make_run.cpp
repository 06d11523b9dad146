#include <ATen/Parallel.h>

#include "atelier/cli/stages.h"
#include "atelier/core/error.h"
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
        command.insert(command.end(), {"--student", std::to_string(k)});
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

}  // namespace

void make_ensemble(Workshop& workshop) {
    const fs::path folder = workshop.output() / "ensemble";
    if (models::is_ensemble_directory(folder)) return;
    const Split split = make_partition(workshop);
    std::vector<fs::path> students;
    for (std::int64_t k = 0; k < split.owners.students; ++k) {
        if (!student_finished(workshop, k)) {
            core::fail("{}: student {} is not finished; run: atelier distill {} --student {}", workshop.output().string(), k,
                       workshop.loaded().path, k);
        }
        students.push_back(workshop.output() / fmt::format("students/{}/{}", k, last_stage(workshop.config())));
    }
    const std::string teacher = ops::hash_of(workshop.teacher().parameters);
    if (split.prompts) models::write_prompt_ensemble(folder, *split.prompts, workshop.output() / "teacher", students, teacher, nlohmann::json::object());
    else models::write_ensemble(folder, split.owners, data::prior_of(*workshop.data()), students, teacher, nlohmann::json::object());
    core::log::info("ensemble: {} students at {}", students.size(), folder.string());
}

void make_everything(Workshop& workshop) {
    last_stage(workshop.config());
    core::log::also_write_to((workshop.output() / "log.txt").string());
    make_teacher(workshop);
    make_partition(workshop);
    make_pairs(workshop);
    make_students(workshop);
    make_ensemble(workshop);
    make_evaluation(workshop);
    make_report(workshop);
}

}  // namespace atelier::cli
