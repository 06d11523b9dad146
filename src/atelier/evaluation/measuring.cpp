#include "atelier/evaluation/measuring.h"

#include <algorithm>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/data/toy_points.h"
#include "atelier/evaluation/clip.h"
#include "atelier/evaluation/inception.h"
#include "atelier/evaluation/latency.h"
#include "atelier/evaluation/statistics_file.h"

namespace atelier::evaluation {

namespace {

constexpr std::int64_t clip_block = 500;

SampleSource source_of(inference::Generator& generator, const std::string& name) {
    return [&generator, name](std::int64_t count, std::uint64_t seed) {
        const inference::Wanted all = inference::plan(count, seed, {}, generator.prior());
        core::Progress progress("sampling " + name, count, "samples");
        return Samples{inference::draw_in_parts(generator, all, [&](std::int64_t done) { progress.update(done); }), all.classes};
    };
}

nlohmann::json latency_of(inference::Generator& generator) {
    const inference::Wanted one = inference::plan(1, 0, {}, generator.prior());
    return to_json(median_seconds([&] { generator.draw(one); }));
}

Protocol protocol_of(const Measuring& measuring) {
    Protocol protocol;
    protocol.count = measuring.count;
    protocol.seeds = measuring.seeds;
    protocol.reference_path = measuring.reference.empty() ? measuring.data : measuring.reference;
    protocol.program = "atelier " ATELIER_VERSION;
    if (measuring.reference.empty() && data::is_toy(measuring.data)) {
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

nlohmann::json measured(const Measuring& measuring, const Evaluator& evaluator, inference::Generator& generator,
                        const Subject& subject) {
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

/// What models are measured by: the reference, and the features of images.
class Yardstick {
public:
    Yardstick(const Measuring& measuring, const models::DataForm& form) {
        if (form.kind == models::DataForm::Kind::image) open_space(measuring);
        else if (!measuring.inception.empty() || !measuring.reference.empty()) core::fail("Inception's features and reference statistics are for images; this model draws points");
        if (measuring.reference.empty()) {
            const auto data = data::open_dataset({.path = measuring.data, .split = measuring.split, .limit = 0});
            evaluator_ = std::make_unique<Evaluator>(data, space_.get(), protocol_of(measuring));
        } else {
            const Statistics statistics = read_statistics(measuring.reference, space_->width());
            evaluator_ = std::make_unique<Evaluator>(statistics, core::sha256_of_file(measuring.reference), form, *space_, protocol_of(measuring));
        }
        if (measuring.save_reference.empty()) return;
        if (!evaluator_->reference_statistics()) core::fail("statistics of features are written of images; these are points");
        write_statistics(measuring.save_reference, *evaluator_->reference_statistics());
    }

    const Evaluator& evaluator() const { return *evaluator_; }

private:
    void open_space(const Measuring& measuring) {
        if (measuring.inception.empty()) space_ = std::make_unique<FeatureExtractor>(measuring.classifier, measuring.device);
        else space_ = std::make_unique<Inception>(measuring.inception, measuring.device);
    }

    std::unique_ptr<FeatureSpace> space_;
    std::unique_ptr<Evaluator> evaluator_;
};

std::string seconds_words(const nlohmann::json& result) {
    if (!result.contains("latency")) return "-";
    return fmt::format("{:.2f}", 1000 * result["latency"]["median_seconds"].get<double>());
}

/// Rows first..first+n-1.
Tensor some_of(const data::Dataset& images, std::int64_t first, std::int64_t n) {
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(n));
    std::iota(numbers.begin(), numbers.end(), first);
    return images.samples(numbers);
}

/// How well each of the first images fits its caption: the mean of 100 cos(image, caption), no less than 0 each (Hessel et al. 2021, as torchmetrics scales it).
double clip_score(const Clip& clip, const data::Dataset& images, std::span<const std::string> captions) {
    const auto count = static_cast<std::int64_t>(captions.size());
    core::Progress progress("CLIP score", count, "images");
    double sum = 0;
    for (std::int64_t first = 0; first < count; first += clip_block) {
        if (core::stop_requested()) throw core::Interrupted("interrupted while measuring; nothing was written");
        const std::int64_t n = std::min(clip_block, count - first);
        const Tensor seen = clip.images(models::to_user_space(images.form(), some_of(images, first, n)));
        const Tensor read = clip.texts(captions.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)));
        sum += (100 * (seen * read).sum(1)).clamp_min(0).sum(at::kDouble).item<double>();
        progress.update(first + n);
    }
    return sum / static_cast<double>(count);
}

void add_clip_score(nlohmann::json& result, const Measuring& measuring, const data::Dataset& images, std::span<const std::string> captions) {
    const Clip clip(measuring.clip, measuring.device);
    const distillation::Metrics draw{{"clip_score", clip_score(clip, images, captions)}};
    result["metrics"].update(summaries({&draw}));
    result["protocol"]["clip"] = clip.hash();
    result["protocol"]["captions"] = core::sha256_of_lines(captions);
}

}  // namespace

nlohmann::json measure(const Measuring& measuring, const std::vector<std::pair<std::string, inference::Generator*>>& models) {
    const Yardstick yardstick(measuring, models.front().second->form());
    const Evaluator& evaluator = yardstick.evaluator();
    nlohmann::json results = nlohmann::json::object();
    nlohmann::json order = nlohmann::json::array();
    for (const auto& [name, generator] : models) {
        const inference::Sampling& sampling = generator->sampling();
        const Subject subject{source_of(*generator, name), inference::hash_of(*generator),
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

nlohmann::json measure_images(Measuring measuring, const std::string& path, std::span<const std::string> captions) {
    const auto images = data::open_dataset({.path = path, .split = "train", .limit = 0});
    if (images->form().kind != models::DataForm::Kind::image) core::fail("{}: holds points; only images are measured without a model", path);
    if (measuring.count > images->size()) core::log::info("{}: has {} images, all of them are measured", path, images->size());
    measuring.count = std::min(measuring.count, images->size());
    measuring.seeds = {0};
    if (!captions.empty() && static_cast<std::int64_t>(captions.size()) < measuring.count) {
        core::fail("{}: has {} images, and there are {} captions; caption i belongs to image i by name", path, measuring.count, captions.size());
    }
    const Yardstick yardstick(measuring, images->form());
    const Subject subject{[&](std::int64_t count, std::uint64_t) {
                                          Samples samples{.model_space = {}, .labels = images->labels(), .count = count, .read = [&images](std::int64_t first, std::int64_t n) {
                                                              return some_of(*images, first, n);
                                                          }};
                                          if (!samples.labels.empty()) samples.labels.resize(static_cast<std::size_t>(count));
                                          return samples;
                                      },
                                      images->hash(), {{"name", path}, {"images", images->size()}}};
    nlohmann::json result = yardstick.evaluator().evaluate(subject);
    if (!captions.empty()) add_clip_score(result, measuring, *images, captions.subspan(0, static_cast<std::size_t>(measuring.count)));
    return {{"order", {path}}, {"models", {{path, std::move(result)}}}};
}

std::vector<std::pair<std::string, std::string>> figures_of(const nlohmann::json& results) {
    static const std::vector<std::pair<std::string, std::string>> known{
        {"fid", "FID ↓"}, {"kid", "KID ↓"}, {"inception_score", "Inception Score ↑"}, {"feature_distance", "feature distance ↓"}, {"kernel_feature_distance", "kernel distance ↓"},
        {"sliced_wasserstein", "sliced Wasserstein ↓"}, {"mmd_squared", "MMD² ↓"},
        {"modes_reached", "modes reached ↑"}, {"worst_mode", "worst mode's share ↑"}, {"strays", "strays ↓"},
        {"clip_score", "CLIP score ↑"}, {"precision", "precision ↑"}, {"recall", "recall ↑"}, {"density", "density ↑"}, {"coverage", "coverage ↑"},
        {"class_agreement", "class agreement ↑"}, {"garment_agreement", "garment as asked ↑"}, {"amount_agreement", "amount as asked ↑"},
        {"place_agreement", "place as asked ↑"}, {"colour_agreement", "colour as asked ↑"}, {"paraphrase_stability", "paraphrases to one student ↑"}};
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

Table comparison_table(const nlohmann::json& results) {
    Table table;
    table.columns = {"model", "parameters", "evaluations", "ms a sample"};
    const auto figures = figures_of(results);
    for (const auto& [key, words] : figures) table.columns.push_back(words);
    for (const auto& name : results.at("order")) {
        const nlohmann::json& result = results.at("models").at(name.get<std::string>());
        const bool of_model = result.contains("parameters");  // else of images that somebody brought
        std::vector<std::string> row{name.get<std::string>(), of_model ? fmt::format("{:.3g} M", result.at("parameters").get<double>() / 1e6) : "-",
                                     of_model ? result.at("evaluations").dump() : "-", seconds_words(result)};
        for (const auto& [key, words] : figures) row.push_back(mean_and_spread(result.at("metrics"), key));
        table.rows.push_back(row);
    }
    return table;
}

std::string text_of(const Table& table) {
    std::string text;
    for (std::size_t column = 0; column < table.columns.size(); ++column) {
        text += fmt::format("{:<24}", table.columns[column]);
        for (const auto& row : table.rows) text += fmt::format("  {:>18}", row[column]);
        text += "\n";
    }
    return text;
}

}  // namespace atelier::evaluation
