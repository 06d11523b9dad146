#include <functional>

#include "atelier/cli/stages.h"
#include "atelier/core/log.h"
#include "atelier/evaluation/caption_measuring.h"

namespace atelier::cli {

namespace {

evaluation::Measuring measuring_of(const RunConfig& config) {
    evaluation::Measuring measuring;
    measuring.data = config.test_path.empty() ? config.data_path : config.test_path;
    measuring.classifier = config.evaluation.classifier;
    measuring.count = config.evaluation.count;
    measuring.device = inference::device_of(config.device);
    if (!config.teacher.path.empty()) measuring.earlier = std::filesystem::path(config.teacher.path).parent_path() / "evaluation.json";
    measuring.seeds.clear();
    for (std::int64_t i = 0; i < config.evaluation.seeds; ++i) measuring.seeds.push_back(static_cast<std::uint64_t>(1000 + i));
    return measuring;
}

/// Measures what `identity` names, unless the run's evaluation.json is of just that: weights and protocol.
void measure_once(const Workshop& workshop, nlohmann::json identity, const evaluation::Measuring& measuring, const std::function<nlohmann::json()>& measured) {
    const auto path = workshop.output() / "evaluation.json";
    identity.update({{"count", measuring.count}, {"seeds", measuring.seeds}, {"data", measuring.data}});
    if (std::filesystem::exists(path) && core::read_json(path).value("identity", nlohmann::json()) == identity) return;
    core::log::info("evaluation: {} samples of {} seed(s), from seed {} on", measuring.count, measuring.seeds.size(), measuring.seeds.front());
    nlohmann::json results = measured();
    results["identity"] = identity;
    core::write_json(path, results);
    core::log::info("{}", text_of(evaluation::comparison_table(results)));
}

/// The teacher's rows: by evaluate.steps of Heun's method, and by each of evaluate.samplers.
using TeacherRows = std::vector<std::pair<std::string, inference::Sampling>>;

TeacherRows teacher_rows(const EvaluationConfig& config) {
    TeacherRows rows{{"teacher", {inference::Sampling::Method::heun, config.steps}}};
    for (const std::string& sampler : config.samplers) rows.emplace_back("teacher, " + sampler, *inference::sampling_of(sampler, std::nullopt));
    return rows;
}

/// Opens the teacher once a row by `open`, and names the students' generator second, where readers of evaluation.json look for it.
template <class Generator, class Open>
std::vector<std::pair<std::string, Generator*>> subjects_of(const TeacherRows& rows, std::vector<std::unique_ptr<Generator>>& teachers,
                                                            const std::string& students, Generator& ensemble, const Open& open) {
    std::vector<std::pair<std::string, Generator*>> subjects;
    for (const auto& [name, sampling] : rows) {
        teachers.push_back(open(sampling));
        subjects.emplace_back(name, teachers.back().get());
        if (subjects.size() == 1) subjects.emplace_back(students, &ensemble);
    }
    return subjects;
}

void evaluate_captions(Workshop& workshop, const evaluation::Measuring& measuring, const TeacherRows& rows, const std::string& students) {
    const inference::Engine engine{.device = workshop.device()};
    inference::PromptedGenerator ensemble(workshop.output() / "ensemble", std::nullopt, std::nullopt, engine);
    std::vector<std::unique_ptr<inference::PromptedGenerator>> teachers;
    const auto subjects = subjects_of(rows, teachers, students, ensemble, [&](const inference::Sampling& sampling) {
        return std::make_unique<inference::PromptedGenerator>(workshop.output() / "teacher", sampling, std::nullopt, engine);
    });
    const nlohmann::json identity{{"ensemble", ensemble.hashes()}, {"teacher", teachers.front()->hashes()}, {"guidance", teachers.front()->guidance()},
                                  {"steps", workshop.config().evaluation.steps}, {"samplers", workshop.config().evaluation.samplers},
                                  {"classifier", measuring.classifier}};
    measure_once(workshop, identity, measuring, [&] { return evaluation::measure_captions(measuring, subjects); });
}

void evaluate_classes(Workshop& workshop, const evaluation::Measuring& measuring, const TeacherRows& rows, const std::string& students) {
    const inference::Engine engine{.device = workshop.device()};
    const auto ensemble = inference::open_generator(workshop.output() / "ensemble", std::nullopt, engine);
    std::vector<std::unique_ptr<inference::Generator>> teachers;
    const auto subjects = subjects_of(rows, teachers, students, *ensemble, [&](const inference::Sampling& sampling) {
        return inference::open_generator(workshop.output() / "teacher", sampling, engine);
    });
    const nlohmann::json identity{{"ensemble", inference::hash_of(*ensemble)}, {"teacher", inference::hash_of(*teachers.front())},
                                  {"steps", workshop.config().evaluation.steps}, {"samplers", workshop.config().evaluation.samplers}};
    measure_once(workshop, identity, measuring, [&] { return measure(measuring, subjects); });
}

}  // namespace

void make_evaluation(Workshop& workshop) {
    const RunConfig& config = workshop.config();
    const evaluation::Measuring measuring = measuring_of(config);
    if (workshop.data()->form().kind == models::DataForm::Kind::latent) {
        core::log::info("evaluation skipped: pictures of prompts are measured by a command of its own, once the students are done");
        return;
    }
    if (workshop.data()->form().kind == models::DataForm::Kind::image && !std::filesystem::exists(measuring.classifier)) {
        core::log::warning("evaluation skipped: there is no classifier at {} (evaluate.classifier)", measuring.classifier);
        return;
    }
    const auto evaluate = workshop.data()->captions().empty() ? evaluate_classes : evaluate_captions;
    evaluate(workshop, measuring, teacher_rows(config.evaluation), fmt::format("K={} students", config.partition.students));
}

}  // namespace atelier::cli
