#include "atelier/training/run_log.h"

#include <cmath>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"

namespace atelier::training {

namespace fs = std::filesystem;

namespace {

fs::path keep_lines_before(const fs::path& path, std::int64_t first_step) {
    if (!fs::exists(path)) return path;
    std::ifstream in(path);
    std::string kept, line;
    while (std::getline(in, line)) {
        const auto json = nlohmann::json::parse(line, nullptr, false);
        if (json.is_object() && json.value("step", first_step) < first_step) kept += line + "\n";
    }
    core::write_text(path, kept);
    return path;
}

}  // namespace

RunLog::RunLog(const fs::path& folder, std::int64_t first_step) : board_(folder, first_step) {
    const fs::path path = folder / "metrics.jsonl";
    lines_.open(keep_lines_before(path, first_step), std::ios::app);
    if (!lines_) core::fail("{}: cannot be written", path.string());
}

void RunLog::write(std::int64_t step, const distillation::Metrics& metrics) {
    nlohmann::ordered_json line{{"step", step}};
    for (const auto& [name, value] : metrics) {
        if (std::isfinite(value)) line[name] = value;
    }
    lines_ << line.dump() << "\n" << std::flush;
    board_.add(step, metrics);
}

}  // namespace atelier::training
