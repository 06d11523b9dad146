#include "atelier/cli/report_sections.h"
#include "atelier/cli/stages.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/log.h"

namespace atelier::cli {

void make_report(Workshop& workshop) {
    const RunConfig& config = workshop.config();
    evaluation::Report report(workshop.output().filename().string(),
                              fmt::format("One teacher, {} one-step students; seed {}; data {}", config.partition.students, config.seed, config.data_path));
    Shelf shelf = open_shelf(workshop.output());
    shelf.engine.device = workshop.device();
    shelf.data_path = config.data_path;  // the data may have been moved since the stages noted their place
    shelf.test_path = config.test_path.empty() ? config.data_path : config.test_path;
    add_everything(report, shelf);
    RunConfig all = config;
    report.add_details("Config", schema_of(all).values().dump(2));
    const auto path = workshop.output() / "report.html";
    report.write(path);
    core::log::info("report: {}", path.string());
}

void report_on(const std::vector<std::string>& folders, const std::filesystem::path& out) {
    core::check_output_file(out);
    evaluation::Report report("Atelier", "A teacher, and the one-step students that learned from it");
    for (const std::string& folder : folders) {
        const Shelf shelf = open_shelf(folder);
        report.add_heading(std::filesystem::path(folder).lexically_normal().string());
        add_everything(report, shelf);
    }
    report.write(out);
    core::log::info("report: {}", out.string());
}

}  // namespace atelier::cli
