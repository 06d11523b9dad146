#include "atelier/cli/report_sections.h"
#include "atelier/cli/stages.h"
#include "atelier/core/log.h"

namespace atelier::cli {

void make_report(Workshop& workshop) {
    const RunConfig& config = workshop.config();
    evaluation::Report report(workshop.output().filename().string(),
                              fmt::format("One teacher, {} one-step students; seed {}; data {}", config.partition.students, config.seed, config.data_path));
    add_samples(report, workshop.output(), config.data_path);
    add_figures(report, workshop.output());
    add_partition(report, workshop.output());
    add_neighbours(report, workshop.output(), config.data_path);
    add_training(report, workshop.output());
    RunConfig all = config;
    report.add_details("Config", schema_of(all).values().dump(2));
    const auto path = workshop.output() / "report.html";
    report.write(path);
    core::log::info("report: {}", path.string());
}

}  // namespace atelier::cli
