#include "atelier/cli/measuring.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/data/toy_points.h"
#include "atelier/evaluation/latency.h"

namespace atelier::cli {

namespace {

constexpr std::int64_t drawn_at_once = 1000;

evaluation::SampleSource source_of(inference::Generator& generator, const std::string& name) {
    return [&generator, name](std::int64_t count, std::uint64_t seed) {
        const inference::Wanted all = inference::plan(count, seed, {}, generator.prior());
        core::Progress progress("sampling " + name, count, "samples");
        std::vector<Tensor> parts;
        for (std::int64_t first = 0; first < count; first += drawn_at_once) {
            const auto end = std::min(first + drawn_at_once, count);
            parts.push_back(generator.draw({seed, {all.numbers.begin() + first, all.numbers.begin() + end},
                                            {all.classes.begin() + first, all.classes.begin() + end}}));
            progress.update(end);
        }
        return evaluation::Samples{at::cat(parts), all.classes};
    };
}

nlohmann::json latency_of(inference::Generator& generator) {
    const inference::Wanted one = inference::plan(1, 0, {}, generator.prior());
    const auto measured = evaluation::median_seconds([&] { generator.draw(one); });
    return {{"median_seconds", measured.median}, {"least_seconds", measured.least}, {"most_seconds", measured.most},
            {"runs", measured.runs}, {"batch", 1}, {"threads", at::get_num_threads()}};
}

evaluation::Protocol protocol_of(const Measuring& measuring) {
    evaluation::Protocol protocol;
    protocol.count = measuring.count;
    protocol.seeds = measuring.seeds;
    protocol.reference_path = measuring.data;
    protocol.program = "atelier " ATELIER_VERSION;
    if (data::is_toy(measuring.data)) {
        const data::ToyTruth truth = data::toy_truth(measuring.data);
        protocol.centres = truth.centres;
        protocol.deviation = truth.deviation;
    }
    return protocol;
}

/// Neither what a model is called nor where its data lie changes a figure.
nlohmann::json without_names(nlohmann::json protocol) {
    protocol["model"].erase("name");
    protocol["model"].emplace("engine", "torch");  // results that are older than the choice
    protocol["model"].emplace("precision", "fp32");
    protocol["reference"].erase("path");
    return protocol;
}

/// The result that `path` holds for the same weights and protocol, or null. A file that is absent or no evaluation is no hindrance.
nlohmann::json earlier_result(const std::filesystem::path& path, const nlohmann::json& protocol) {
    if (path.empty() || !std::filesystem::exists(path)) return nullptr;
    try {
        const nlohmann::json results = core::read_json(path), wanted = without_names(protocol);
        for (const auto& [name, result] : results.at("models").items()) {
            if (without_names(result.at("protocol")) == wanted) return result;
        }
    } catch (const std::exception& error) {
        core::log::warning("{} is not used: {}", path.string(), error.what());
    }
    return nullptr;
}

nlohmann::json measured(const Measuring& measuring, const evaluation::Evaluator& evaluator, inference::Generator& generator,
                        const evaluation::Subject& subject) {
    const inference::Sampling& sampling = generator.sampling();
    nlohmann::json result = evaluator.evaluate(subject);
    std::int64_t parameters = 0;
    for (std::int64_t k = 0; k < generator.students(); ++k) parameters = std::max(parameters, generator.parameters_of_student(k));
    result["evaluations"] = sampling.evaluations();
    result["parameters"] = parameters;
    result["students"] = generator.students();
    if (measuring.latency) result["latency"] = latency_of(generator);
    return result;
}

std::string seconds_words(const nlohmann::json& result) {
    if (!result.contains("latency")) return "-";
    return fmt::format("{:.2f}", 1000 * result["latency"]["median_seconds"].get<double>());
}

}  // namespace

nlohmann::json measure(const Measuring& measuring, const std::vector<std::pair<std::string, inference::Generator*>>& models) {
    const auto reference = data::open_dataset({.path = measuring.data, .split = measuring.split, .limit = 0});
    std::unique_ptr<evaluation::FeatureExtractor> extractor;
    if (reference->form().kind == models::DataForm::Kind::image) {
        extractor = std::make_unique<evaluation::FeatureExtractor>(measuring.classifier);
    }
    const evaluation::Evaluator evaluator(reference, extractor.get(), protocol_of(measuring));
    nlohmann::json results = nlohmann::json::object();
    nlohmann::json order = nlohmann::json::array();
    for (const auto& [name, generator] : models) {
        const inference::Sampling& sampling = generator->sampling();
        const evaluation::Subject subject{source_of(*generator, name), inference::hash_of(*generator),
                                          {{"name", name}, {"sampler", inference::name_of(sampling.method)}, {"evaluations", sampling.evaluations()},
                                           {"engine", inference::name_of(generator->engine().kind)},
                                           {"precision", inference::name_of(generator->engine().precision)}}};
        results[name] = earlier_result(measuring.earlier, evaluator.protocol_of(subject));
        if (results[name].is_null()) {
            results[name] = measured(measuring, evaluator, *generator, subject);
        } else {
            core::log::info("{}: measured before, its figures are taken from {}", name, measuring.earlier.string());
            results[name]["taken_from"] = measuring.earlier.string();
        }
        order.push_back(name);
    }
    return {{"order", order}, {"models", results}};
}

std::vector<std::pair<std::string, std::string>> figures_of(const nlohmann::json& results) {
    static const std::vector<std::pair<std::string, std::string>> known{
        {"feature_distance", "feature distance ↓"}, {"kernel_feature_distance", "kernel distance ↓"},
        {"sliced_wasserstein", "sliced Wasserstein ↓"}, {"mmd_squared", "MMD² ↓"},
        {"modes_reached", "modes reached ↑"}, {"worst_mode", "worst mode's share ↑"}, {"strays", "strays ↓"},
        {"precision", "precision ↑"}, {"recall", "recall ↑"}, {"density", "density ↑"}, {"coverage", "coverage ↑"},
        {"class_agreement", "class agreement ↑"}};
    std::vector<std::pair<std::string, std::string>> present;
    for (const auto& figure : known) {
        for (const auto& [name, result] : results.at("models").items()) {
            if (result.at("metrics").contains(figure.first)) {
                present.push_back(figure);
                break;
            }
        }
    }
    return present;
}

evaluation::Table comparison_table(const nlohmann::json& results) {
    evaluation::Table table;
    table.columns = {"model", "parameters", "evaluations", "ms a sample"};
    const auto figures = figures_of(results);
    for (const auto& [key, words] : figures) table.columns.push_back(words);
    for (const auto& name : results.at("order")) {
        const nlohmann::json& result = results.at("models").at(name.get<std::string>());
        std::vector<std::string> row{name.get<std::string>(), fmt::format("{:.3g} M", result.at("parameters").get<double>() / 1e6),
                                     result.at("evaluations").dump(), seconds_words(result)};
        for (const auto& [key, words] : figures) row.push_back(evaluation::mean_and_spread(result.at("metrics"), key));
        table.rows.push_back(row);
    }
    return table;
}

std::string text_of(const evaluation::Table& table) {
    std::string text;
    for (std::size_t column = 0; column < table.columns.size(); ++column) {
        text += fmt::format("{:<24}", table.columns[column]);
        for (const auto& row : table.rows) text += fmt::format("  {:>18}", row[column]);
        text += "\n";
    }
    return text;
}

}  // namespace atelier::cli
