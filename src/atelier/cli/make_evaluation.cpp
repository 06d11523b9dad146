#include "atelier/evaluation/measuring.h"
#include "atelier/cli/stages.h"
#include "atelier/core/log.h"

namespace atelier::cli {

void make_evaluation(Workshop& workshop) {
    const RunConfig& config = workshop.config();
    const auto path = workshop.output() / "evaluation.json";
    const auto ensemble = inference::open_generator(workshop.output() / "ensemble", std::nullopt, {.device = workshop.device()});
    const inference::Sampling many{inference::Sampling::Method::heun, config.evaluation.steps};
    const auto teacher = inference::open_generator(workshop.output() / "teacher", many, {.device = workshop.device()});

    evaluation::Measuring measuring;
    measuring.data = config.test_path.empty() ? config.data_path : config.test_path;
    measuring.classifier = config.evaluation.classifier;
    measuring.count = config.evaluation.count;
    if (!config.teacher.path.empty()) measuring.earlier = std::filesystem::path(config.teacher.path).parent_path() / "evaluation.json";
    measuring.seeds.clear();
    for (std::int64_t i = 0; i < config.evaluation.seeds; ++i) measuring.seeds.push_back(static_cast<std::uint64_t>(1000 + i));

    // Measured again only when weights or protocol changed.
    const nlohmann::json identity{{"ensemble", inference::hash_of(*ensemble)}, {"teacher", inference::hash_of(*teacher)},
                                  {"count", measuring.count}, {"seeds", measuring.seeds}, {"data", measuring.data}};
    if (std::filesystem::exists(path) && core::read_json(path).value("identity", nlohmann::json()) == identity) return;
    if (workshop.data()->form().kind == models::DataForm::Kind::image && !std::filesystem::exists(measuring.classifier)) {
        core::log::warning("evaluation skipped: there is no classifier at {} (evaluate.classifier)", measuring.classifier);
        return;
    }
    core::log::info("evaluation: {} samples, {} seed(s)", measuring.count, measuring.seeds.size());
    const std::string students = fmt::format("K={} students", config.partition.students);
    nlohmann::json results = measure(measuring, {{"teacher", teacher.get()}, {students, ensemble.get()}});
    results["identity"] = identity;
    core::write_json(path, results);
    core::log::info("{}", text_of(evaluation::comparison_table(results)));
}

}  // namespace atelier::cli
