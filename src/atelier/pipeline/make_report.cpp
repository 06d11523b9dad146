#include <fmt/format.h>

#include "atelier/core/atomic_file.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/pipeline/make_stages.h"
#include "atelier/pipeline/stages.h"
#include "atelier/report/comparison.h"
#include "atelier/report/report_sections.h"

namespace atelier::pipeline {

void make_report(RunContext& context) {
    const RunConfig& config = context.config();
    report::Report report(context.output().filename().string(),
                          fmt::format("One teacher, {} one-step students; seed {}; data {}",
                                      config.partition.students, config.seed, config.data_path));
    report::RunModels run = report::open_run_models(context.output());
    run.engine.device = context.device();
    run.data_path =
        config.data_path;  // the data may have been moved since the stages noted their place
    run.test_path = config.test_path.empty() ? config.data_path : config.test_path;
    for (const Stage& stage : stages(config)) run.stages.push_back(stage.path());
    report::add_everything(report, run);
    RunConfig all = config;
    report.add_details("Config", core::json_text(schema_of(all).values(), 2));
    const auto path = context.path_of(StageKind::report);
    report.write(path);
    core::log::info("report: {}", path.string());
}

void report_on(const std::vector<std::string>& folders, const std::filesystem::path& out) {
    core::check_output_file(out);
    report::Report report("Atelier", "A teacher, and the one-step students that learned from it");
    for (const std::string& folder : folders) {
        const report::RunModels run = report::open_run_models(folder);
        const std::string name = std::filesystem::path(folder).lexically_normal().string();
        report.add_heading(name);
        report::add_everything(report, run);
        const nlohmann::json results = report::evaluations_of(run);
        if (!results.at("order").empty())
            fmt::print("{}\n{}\n", name, report::text_of(report::comparison_table(results)));
    }
    report.write(out);
    core::log::info("report: {}", out.string());
}

}  // namespace atelier::pipeline
