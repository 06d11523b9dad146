#include <ATen/Parallel.h>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/models/ensemble.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/pipeline/stages.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;

/// The last of the stages that the config asks for.
std::string last_stage(const RunConfig& config) {
    if (config.adm.steps > 0) return "adm";
    if (config.dm.steps > 0) return "dm";
    throw core::UsageError(
        "dm.steps and adm.steps are both 0; a student needs at least one of the stages");
}

/// Trains every student in a process of its own, so that they share neither threads nor memory.
void train_in_parallel(RunContext& context) {
    std::vector<std::vector<std::string>> commands;
    for (std::int64_t k = 0; k < context.config().partition.students; ++k) {
        std::vector<std::string> command{fs::read_symlink("/proc/self/exe").string(), "distill",
                                         context.loaded().path};
        command.insert(command.end(), context.loaded().overrides.begin(),
                       context.loaded().overrides.end());
        // Adjusted values, so that the processes do not repeat the warnings about them.
        const RunConfig& config = context.config();
        command.push_back(fmt::format("threads={}", config.threads));
        command.push_back(fmt::format("students.threads={}", config.students.threads));
        command.push_back(fmt::format("students.parallel={}", config.students.parallel));
        if (config.evaluation.classifier.empty()) command.push_back("evaluate.classifier=");
        command.insert(command.end(), {"--student", std::to_string(k), "--checked"});
        commands.push_back(std::move(command));
    }
    core::run_processes(commands, static_cast<int>(context.config().students.parallel));
}

bool student_finished(RunContext& context, std::int64_t student) {
    const fs::path folder =
        context.output() / fmt::format("students/{}/{}", student, last_stage(context.config()));
    return fs::exists(folder / "stage.json") &&
           core::read_json(folder / "stage.json").value("status", "") == "finished";
}

void make_students(RunContext& context) {
    const std::int64_t students = context.config().partition.students;
    bool missing = false;
    for (std::int64_t k = 0; k < students; ++k) missing = missing || !student_finished(context, k);
    if (missing && context.config().students.parallel > 1 && students > 1) {
        train_in_parallel(context);
        return;
    }
    for (std::int64_t k = 0; k < students; ++k) make_student(context, k);
    at::set_num_threads(static_cast<int>(context.config().threads));
}

/// Throws core::Error where the existing ensemble holds students that were trained again since.
void check_ensemble(RunContext& context, const fs::path& folder) {
    const auto made = fs::last_write_time(folder / "ensemble.json");
    const models::Ensemble ensemble = models::read_ensemble(folder);
    for (std::size_t k = 0; k < ensemble.students.size(); ++k) {
        const fs::path student = context.output() /
                                 fmt::format("students/{}/{}", k, last_stage(context.config())),
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

void make_ensemble(RunContext& context) {
    const fs::path folder = context.output() / "ensemble";
    if (models::is_ensemble_directory(folder)) return check_ensemble(context, folder);
    const Split split = make_partition(context);
    std::vector<fs::path> students;
    for (std::int64_t k = 0; k < split.owners.students; ++k) {
        if (!student_finished(context, k)) {
            core::fail("{}: student {} is not finished; run: atelier distill {} --student {}",
                       context.output().string(), k, context.loaded().path, k);
        }
        students.push_back(context.output() /
                           fmt::format("students/{}/{}", k, last_stage(context.config())));
    }
    const std::string& teacher = context.teacher_hash();
    if (split.prompts)
        models::write_prompt_ensemble(folder, *split.prompts, context.output() / "teacher",
                                      students, teacher, nlohmann::json::object());
    else
        models::write_ensemble(folder, split.owners, data::prior_of(*context.data()), students,
                               teacher, nlohmann::json::object());
    core::log::info("ensemble: {} students at {}", students.size(), folder.string());
}

void make_everything(RunContext& context) {
    last_stage(context.config());
    make_teacher(context);
    const Split split = make_partition(context);
    check_cells(context.config(), split.owners, *context.raw_data());
    make_pairs(context);
    make_students(context);
    make_ensemble(context);
    make_evaluation(context);
    make_report(context);
}

}  // namespace atelier::pipeline
