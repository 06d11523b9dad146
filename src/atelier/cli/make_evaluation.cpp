#include <functional>

#include "atelier/cli/latent_data.h"
#include "atelier/cli/preflight.h"
#include "atelier/cli/stages.h"
#include "atelier/core/log.h"
#include "atelier/data/caption_grammar.h"
#include "atelier/data/captioned_images.h"
#include "atelier/evaluation/caption_measuring.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t first_seed = 1000;  // apart from the seeds that people look at

evaluation::Measuring measuring_of(const Workshop& workshop) {
    const RunConfig& config = workshop.config();
    evaluation::Measuring measuring;
    measuring.data = config.test_path.empty() ? config.data_path : config.test_path;
    measuring.classifier = config.evaluation.classifier;
    measuring.device = workshop.device();
    measuring.count = config.evaluation.count;
    if (!config.teacher.path.empty()) measuring.earlier = fs::path(config.teacher.path).parent_path() / "evaluation.json";
    measuring.seeds.clear();
    for (std::int64_t i = 0; i < config.evaluation.seeds; ++i) measuring.seeds.push_back(static_cast<std::uint64_t>(first_seed + i));
    return measuring;
}

/// What the figures depend on beside the models: what the config says of evaluations, and the content of what it names.
nlohmann::json measured_by(Workshop& workshop, const evaluation::Measuring& measuring) {
    nlohmann::json settings = workshop.loaded().values_of("evaluation");
    settings.erase("data");  // by its content
    nlohmann::json by{{"settings", settings}, {"seeds", measuring.seeds}, {"data", measuring.data},
                      {"data_hash", data::open_dataset({.path = measuring.data, .split = measuring.split, .limit = 0})->hash()}};
    if (measuring.classifier.empty() || workshop.raw_data()->form().kind != models::DataForm::Kind::image) return by;
    const fs::path classifier = measuring.classifier;
    std::vector<fs::path> files{classifier / "config.json", classifier / "classifier.safetensors"};
    if (data::is_composed(measuring.data)) {
        for (const data::Attribute& attribute : data::attributes()) files.push_back(classifier.parent_path() / attribute.name / "classifier.safetensors");
    }
    by["classifier"] = hash_of_files(files);
    return by;
}

/// Data that were moved are the same.
nlohmann::json without_place(nlohmann::json identity) {
    if (identity.is_object()) identity.erase("data");
    return identity;
}

/// Measures `models` (their hashes and how they are sampled), unless the run's evaluation.json is of just that.
void measure_once(Workshop& workshop, const nlohmann::json& models, const evaluation::Measuring& measuring, const std::function<nlohmann::json()>& measured) {
    const auto path = workshop.output() / "evaluation.json";
    nlohmann::json identity = measured_by(workshop, measuring);
    identity.update(models);
    if (fs::exists(path) && without_place(core::read_json(path).value("identity", nlohmann::json::object())) == without_place(identity)) return;
    const std::string seeds = measuring.seeds.size() == 1 ? fmt::format("seed {}", first_seed) : fmt::format("seeds {} to {}", first_seed, measuring.seeds.back());
    core::log::info("evaluation: {} samples, {} (other seeds draw other samples: figures of `atelier evaluate`, which begins with seed 0, differ by chance)", measuring.count, seeds);
    nlohmann::json results = measured();
    results["identity"] = identity;
    results["reference_is_training_data"] = is_training_data(workshop.config());
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
    const nlohmann::json of{{"ensemble", ensemble.hashes()}, {"teacher", teachers.front()->hashes()}, {"guidance", teachers.front()->guidance()}};
    measure_once(workshop, of, measuring, [&] { return evaluation::measure_captions(measuring, subjects); });
}

void evaluate_classes(Workshop& workshop, const evaluation::Measuring& measuring, const TeacherRows& rows, const std::string& students) {
    const inference::Engine engine{.device = workshop.device()};
    const auto ensemble = inference::open_generator(workshop.output() / "ensemble", std::nullopt, engine);
    std::vector<std::unique_ptr<inference::Generator>> teachers;
    const auto subjects = subjects_of(rows, teachers, students, *ensemble, [&](const inference::Sampling& sampling) {
        return inference::open_generator(workshop.output() / "teacher", sampling, engine);
    });
    const nlohmann::json of{{"ensemble", inference::hash_of(*ensemble)}, {"teacher", inference::hash_of(*teachers.front())}};
    measure_once(workshop, of, measuring, [&] { return measure(measuring, subjects); });
}

}  // namespace

void make_evaluation(Workshop& workshop) {
    const RunConfig& config = workshop.config();
    const evaluation::Measuring measuring = measuring_of(workshop);
    if (draws_latents(config)) {
        core::log::info("evaluation skipped: pictures of prompts are measured by a command of its own, once the students are done");
        return;
    }
    const auto evaluate = workshop.raw_data()->captions().empty() ? evaluate_classes : evaluate_captions;
    evaluate(workshop, measuring, teacher_rows(config.evaluation), fmt::format("K={} students", config.partition.students));
}

}  // namespace atelier::cli
