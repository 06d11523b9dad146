#include "atelier/pipeline/run_status.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <utility>

#include "atelier/core/error.h"
#include "atelier/core/progress.h"
#include "atelier/core/whole_number.h"
#include "atelier/models/identify_path.h"
#include "atelier/pipeline/stages.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;
using State = StageStatus::State;
using Clock = std::chrono::system_clock;

constexpr const char* plan_file = "run.json";
constexpr const char* state_names[]{"done", "running", "interrupted", "waiting", "not needed"};
constexpr const char* run_state_names[]{"empty", "running", "interrupted", "finished"};

/// Seconds since 1970 of a file's last change.
double changed_at(const fs::path& file) {
    struct stat status{};
    if (::stat(file.c_str(), &status) != 0) return 0;
    return static_cast<double>(status.st_mtim.tv_sec) +
           static_cast<double>(status.st_mtim.tv_nsec) * 1e-9;
}

double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

double bytes_below(const fs::path& directory) {
    double bytes = 0;
    std::error_code ignored;
    for (fs::recursive_directory_iterator entry(directory, ignored), end; !ignored && entry != end;
         entry.increment(ignored)) {
        struct stat status{};
        if (::lstat(entry->path().c_str(), &status) == 0)
            bytes += static_cast<double>(status.st_blocks) * 512;
    }
    return bytes;
}

/// JSON of a file that another process may be replacing; null where it cannot be read.
nlohmann::json readable_json(const fs::path& file) {
    try {
        if (fs::exists(file)) return core::read_json(file);
    } catch (const core::Error&) {  // it has just been replaced, or removed
    }
    return nullptr;
}

/// A stage as the plan names it.
struct PlannedStage {
    StageKind kind;
    std::optional<std::int64_t> student;
    std::optional<std::int64_t> steps;
};

std::vector<PlannedStage> recorded_plan(const fs::path& directory) {
    std::vector<PlannedStage> plan;
    const nlohmann::json recorded = readable_json(directory / plan_file);
    if (!recorded.is_object()) return plan;
    const core::JsonObject object(recorded, (directory / plan_file).string());
    for (const nlohmann::json& entry : recorded.value("stages", nlohmann::json::array())) {
        const core::JsonObject stage(entry, object.where());
        PlannedStage planned{stage_kind_of(stage.text("stage")), {}, {}};
        constexpr std::int64_t most = std::int64_t{1} << 60;
        if (stage.has("trunk")) planned.student = trunk;
        if (stage.has("student")) planned.student = stage.integer("student", 0, most);
        if (stage.has("steps")) planned.steps = stage.integer("steps", 0, most);
        plan.push_back(planned);
    }
    return plan;
}

/// The stages that a run of an older version has begun, which recorded no plan.
std::vector<PlannedStage> begun_stages(const fs::path& directory) {
    std::vector<PlannedStage> found;
    std::vector<std::int64_t> students;
    if (fs::is_directory(directory / "students")) {
        for (const auto& entry : fs::directory_iterator(directory / "students")) {
            const std::string name = entry.path().filename().string();
            if (const auto k = core::whole_number(name)) students.push_back(*k);
        }
    }
    std::ranges::sort(students);
    bool of_students = false;
    for (const StageKind kind : stage_kinds) {
        if (std::ranges::find(student_stage_kinds, kind) == student_stage_kinds.end()) {
            if (fs::exists(directory / stage_path(kind))) found.push_back({kind, {}, {}});
            continue;
        }
        if (std::exchange(of_students, true)) continue;
        for (const std::int64_t k : students) {
            for (const StageKind each : student_stage_kinds) {
                if (fs::exists(directory / stage_path(each, k))) found.push_back({each, k, {}});
            }
        }
    }
    return found;
}

/// The number in "PREFIXnumberENDING".
std::optional<std::int64_t> number_in(const std::string& name, std::string_view prefix,
                                      std::string_view ending) {
    if (!name.starts_with(prefix) || !name.ends_with(ending) ||
        name.size() <= prefix.size() + ending.size())
        return std::nullopt;
    return core::whole_number(
        std::string_view(name).substr(prefix.size(), name.size() - prefix.size() - ending.size()));
}

/// Step and age of the newest checkpoint.
void read_checkpoints(const fs::path& training, StageStatus& status) {
    std::error_code ignored;
    std::optional<std::int64_t> newest;
    for (const auto& entry : fs::directory_iterator(training / "checkpoints", ignored)) {
        const auto step = number_in(entry.path().filename().string(), "step-", ".safetensors");
        if (!step || (newest && *step < *newest)) continue;
        newest = step;
        status.checkpoint_seconds_ago = std::max(0.0, now() - changed_at(entry.path()));
    }
    if (newest) status.step = newest;
}

/// The last step and probe distance of metrics.jsonl, from its last lines.
void read_metrics(const fs::path& training, StageStatus& status) {
    constexpr std::streamoff tail = 1 << 20;
    std::ifstream file(training / "metrics.jsonl", std::ios::binary);
    if (!file) return;
    file.seekg(0, std::ios::end);
    const std::streamoff size = file.tellg();
    file.seekg(std::max<std::streamoff>(0, size - tail));
    for (std::string line; std::getline(file, line);) {
        const auto json = nlohmann::json::parse(line, nullptr, false);
        if (!json.is_object()) continue;  // cut off at the beginning, or not complete yet
        if (json.contains("step") && json["step"].is_number_integer())
            status.step = std::max(status.step.value_or(0), json["step"].get<std::int64_t>());
        if (json.contains("probe_distance") && json["probe_distance"].is_number())
            status.probe_distance = json["probe_distance"].get<double>();
    }
}

/// The rate since the stage was last started: the event file of that start has in its name when
/// that was and from which step on, and changed when the last step was logged.
void read_rate(const fs::path& training, StageStatus& status) {
    std::error_code ignored;
    std::string newest;
    for (const auto& entry : fs::directory_iterator(training, ignored)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("events.out.tfevents.") && name.find(".atelier.") != name.npos &&
            name > newest)
            newest = name;
    }
    const std::size_t middle = newest.find(".atelier.");
    if (middle == std::string::npos || !status.step) return;
    const auto started = number_in(newest.substr(0, middle), "events.out.tfevents.", ""),
               first = number_in(newest.substr(middle), ".atelier.", "");
    if (!started || !first) return;
    const double seconds = changed_at(training / newest) - static_cast<double>(*started);
    const std::int64_t steps = *status.step - *first + 1;
    if (steps > 0 && seconds > 1) status.steps_per_second = static_cast<double>(steps) / seconds;
}

/// Pairs that are there, in whole shards.
void count_pairs(const fs::path& folder, const nlohmann::json& manifest, StageStatus& status) {
    const nlohmann::json pairs =
        manifest.value("settings", nlohmann::json::object()).value("pairs", nlohmann::json());
    if (!pairs.is_object() || !pairs.value("shard", nlohmann::json()).is_number_integer() ||
        !pairs.value("count", nlohmann::json()).is_number_integer())
        return;
    std::int64_t shards = 0;
    for (const auto& entry : fs::directory_iterator(folder))
        shards += number_in(entry.path().filename().string(), "shard-", ".safetensors").has_value();
    status.steps = pairs["count"].get<std::int64_t>();
    status.step = std::min(*status.steps, shards * pairs["shard"].get<std::int64_t>());
}

StageStatus status_of(const fs::path& directory, const PlannedStage& stage) {
    const fs::path path = directory / stage_path(stage.kind, stage.student);
    StageStatus status{.path = stage_path(stage.kind, stage.student), .steps = stage.steps};
    const nlohmann::json manifest = readable_json(path / "stage.json");
    if (!manifest.is_object()) {
        if (fs::exists(path) && stage.kind != StageKind::partition) status.state = State::done;
        return status;
    }
    const bool done = manifest.value("status", "") == "finished";
    status.state = done ? State::done : State::interrupted;
    const nlohmann::json result = manifest.value("result", nlohmann::json::object());
    const auto number = [&](const char* key) -> std::optional<double> {
        if (!result.contains(key) || !result[key].is_number()) return std::nullopt;
        return result[key].get<double>();
    };
    if (stage.kind == StageKind::pairs) count_pairs(path, manifest, status);
    if (!done) read_checkpoints(path / "training", status);
    read_metrics(path / "training", status);
    if (done) {
        status.seconds = number("seconds");
        if (const auto distance = number("probe_distance")) status.probe_distance = distance;
        if (status.steps) status.step = status.steps;
        return status;
    }
    read_rate(path / "training", status);
    return status;
}

/// Marks the stages that nobody needs, since later ones of the same student were begun without
/// them: teacher score matching of students of the teacher's size.
void mark_unneeded(std::vector<StageStatus>& stages, const std::vector<PlannedStage>& plan) {
    for (std::size_t i = 0; i < stages.size(); ++i) {
        if (stages[i].state != State::waiting || !plan[i].student) continue;
        for (std::size_t j = i + 1; j < stages.size(); ++j) {
            if (plan[j].student == plan[i].student && stages[j].state != State::waiting)
                stages[i].state = State::unneeded;
        }
    }
}

template <class Values>
void add(nlohmann::json& json, const char* key, const std::optional<Values>& value) {
    if (value) json[key] = *value;
}

nlohmann::json json_of(const core::LockHolder& holder) {
    return {{"host", holder.host}, {"pid", holder.pid}};
}

std::string text_of(const core::LockHolder& holder) {
    return holder.pid == 0 ? "some process"
                           : fmt::format("process {} on {}", holder.pid, holder.host);
}

std::string size_text(double bytes) {
    constexpr double mega = 1e6, giga = 1e9;
    return bytes < giga ? fmt::format("{:.1f} MB", bytes / mega)
                        : fmt::format("{:.1f} GB", bytes / giga);
}

std::string line_of(const StageStatus& stage, bool next) {
    std::string line = next && stage.state == State::waiting
                           ? "next"
                           : state_names[static_cast<std::size_t>(stage.state)];
    if (stage.state == State::done) {
        if (stage.seconds) line += " in " + core::format_duration(*stage.seconds);
    } else if (stage.step && stage.steps && stage.state != State::waiting) {
        line += fmt::format(", step {} of {}", *stage.step, *stage.steps);
    } else if (stage.step && stage.state != State::waiting) {
        line += fmt::format(", step {}", *stage.step);
    }
    if (stage.state == State::running && stage.steps_per_second)
        line += fmt::format(", {:.3g} steps per second", *stage.steps_per_second);
    if (stage.seconds_left) line += ", " + core::format_duration(*stage.seconds_left) + " left";
    if (stage.checkpoint_seconds_ago)
        line += ", checkpoint " + core::format_duration(*stage.checkpoint_seconds_ago) + " old";
    if (stage.probe_distance) line += fmt::format(", probe distance {:.4g}", *stage.probe_distance);
    if (stage.holder) line += ", " + text_of(*stage.holder);
    return line;
}

}  // namespace

void record_plan(const RunContext& context, std::span<const double> shares) {
    nlohmann::json plan{{"config", fs::absolute(context.loaded().path).string()},
                        {"overrides", context.loaded().overrides},
                        {"stages", nlohmann::json::array()}};
    for (const Stage& stage : stages(context.config(), shares)) {
        nlohmann::json entry{{"stage", stage.name()}};
        if (stage.student == trunk) entry["trunk"] = true;
        else if (stage.student) entry["student"] = *stage.student;
        if (stage.work) entry["steps"] = stage.work->steps;
        plan["stages"].push_back(std::move(entry));
    }
    const fs::path file = context.output() / plan_file;
    if (readable_json(file) != plan) core::write_json(file, plan);
}

RunStatus run_status(const fs::path& directory) {
    if (!fs::exists(directory))
        throw core::UsageError(directory.string() +
                               ": there is no such directory; name that of a run (its output)");
    RunStatus run{.directory = directory};
    if (fs::is_directory(directory) && fs::is_empty(directory)) return run;
    if (!fs::exists(directory / plan_file)) {
        const models::PathInfo found = models::identify_path(directory);
        if (found.kind != models::PathInfo::Kind::run)
            throw core::UsageError(fmt::format("{}: {}, and no run; name a run's directory",
                                               directory.string(), found.description));
    }
    std::vector<PlannedStage> plan = recorded_plan(directory);
    if (plan.empty()) plan = begun_stages(directory);
    const auto of_run = core::lock_holder(directory);
    if (of_run) run.holders.push_back(*of_run);
    std::map<std::int64_t, std::optional<core::LockHolder>> of_student;
    for (const PlannedStage& stage : plan) {
        run.stages.push_back(status_of(directory, stage));
        if (!stage.student || of_student.contains(*stage.student)) continue;
        const auto holder = core::lock_holder(directory / students_folder(stage.student));
        of_student[*stage.student] = holder;
        if (holder) run.holders.push_back(*holder);
    }
    mark_unneeded(run.stages, plan);
    bool all_done = !plan.empty();
    for (std::size_t i = 0; i < plan.size(); ++i) {
        StageStatus& stage = run.stages[i];
        if (stage.state == State::interrupted) {
            stage.holder = plan[i].student ? of_student[*plan[i].student] : of_run;
            if (!stage.holder) stage.holder = of_run;
            if (stage.holder) stage.state = State::running;
        }
        if (stage.state == State::running && stage.steps_per_second && stage.step && stage.steps)
            stage.seconds_left =
                static_cast<double>(std::max<std::int64_t>(0, *stage.steps - *stage.step)) /
                *stage.steps_per_second;
        if (stage.state == State::waiting && run.next.empty()) run.next = stage.path;
        all_done = all_done && (stage.state == State::done || stage.state == State::unneeded);
    }
    run.bytes = bytes_below(directory);
    run.state = !run.holders.empty() ? RunStatus::State::running
                : all_done           ? RunStatus::State::finished
                                     : RunStatus::State::interrupted;
    return run;
}

nlohmann::json RunStatus::json() const {
    nlohmann::json json{{"path", directory.string()},
                        {"state", run_state_names[static_cast<std::size_t>(state)]},
                        {"bytes", bytes},
                        {"holders", nlohmann::json::array()},
                        {"stages", nlohmann::json::array()}};
    if (!next.empty()) json["next"] = next;
    for (const core::LockHolder& holder : holders) json["holders"].push_back(json_of(holder));
    for (const StageStatus& stage : stages) {
        nlohmann::json entry{{"stage", stage.path},
                             {"state", state_names[static_cast<std::size_t>(stage.state)]}};
        add(entry, "step", stage.step);
        add(entry, "steps", stage.steps);
        add(entry, "steps_per_second", stage.steps_per_second);
        add(entry, "seconds_left", stage.seconds_left);
        add(entry, "seconds", stage.seconds);
        add(entry, "checkpoint_seconds_ago", stage.checkpoint_seconds_ago);
        add(entry, "probe_distance", stage.probe_distance);
        if (stage.holder) entry["holder"] = json_of(*stage.holder);
        json["stages"].push_back(std::move(entry));
    }
    return json;
}

std::string RunStatus::text() const {
    if (state == State::empty)
        return fmt::format("{}: empty; begin with: atelier run CONFIG output={}\n",
                           directory.string(), directory.string());
    const auto done = std::ranges::count(stages, StageStatus::State::done, &StageStatus::state);
    std::string text = fmt::format("{}: {}, {} of {} stages done, {} on disk\n", directory.string(),
                                   run_state_names[static_cast<std::size_t>(state)], done,
                                   stages.size(), size_text(bytes));
    std::size_t width = 0;
    for (const StageStatus& stage : stages) width = std::max(width, stage.path.size());
    for (const StageStatus& stage : stages)
        text +=
            fmt::format("  {:<{}}  {}\n", stage.path, width, line_of(stage, stage.path == next));
    return text;
}

}  // namespace atelier::pipeline
