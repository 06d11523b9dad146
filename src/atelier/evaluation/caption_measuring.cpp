#include "atelier/evaluation/caption_measuring.h"

#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/progress.h"
#include "atelier/data/caption_grammar.h"
#include "atelier/data/captioned_images.h"
#include "atelier/evaluation/distances.h"
#include "atelier/evaluation/features.h"
#include "atelier/evaluation/latency.h"

namespace atelier::evaluation {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t drawn_at_once = 500;

/// Held-out captions and pictures, and what looks at them.
class CaptionYardstick {
public:
    explicit CaptionYardstick(const Measuring& measuring) : data_(data::open_dataset({.path = measuring.data, .split = measuring.split, .limit = 0})) {
        if (data_->captions().empty()) core::fail("{}: has no captions; a model that reads prompts is measured against captioned data", measuring.data);
        const fs::path garment = measuring.classifier;
        for (const data::Attribute& attribute : data::attributes()) classifiers_.emplace_back(garment.parent_path() / attribute.name);
        features_ = std::make_unique<FeatureExtractor>(garment);
        std::vector<std::int64_t> all(static_cast<std::size_t>(data_->size()));
        std::iota(all.begin(), all.end(), 0);
        pictures_ = data_->samples(all);
        reference_ = statistics_of(features_->features(pictures_).features);
    }

    const std::string& caption(std::int64_t i) const {
        return data_->captions()[static_cast<std::size_t>(data_->labels()[static_cast<std::size_t>(i % data_->size())])];
    }
    std::int64_t size() const { return data_->size(); }
    const std::string& hash() const { return data_->hash(); }
    const Tensor& pictures() const { return pictures_; }

    /// `drawn` [N,1,28,28] for the first N captions.
    distillation::Metrics measure(const Tensor& drawn) const {
        const Tensor seen = models::to_model_space(data_->form(), models::to_user_space(data_->form(), drawn));  // as the pixels of a file
        distillation::Metrics metrics{{"feature_distance", frechet_distance(statistics_of(features_->features(seen).features), reference_)}};
        double sum = 0;
        for (std::size_t a = 0; a < classifiers_.size(); ++a) {
            const data::Attribute& attribute = data::attributes()[a];
            metrics.emplace_back(std::string(attribute.name) + "_agreement", agreement(attribute, predicted_classes(classifiers_[a].features(seen).logits)));
            sum += metrics.back().second;
        }
        metrics.emplace_back("mean_agreement", sum / static_cast<double>(classifiers_.size()));
        return metrics;
    }

private:
    /// Among captions that say something of the attribute.
    double agreement(const data::Attribute& attribute, const std::vector<std::int64_t>& seen) const {
        std::int64_t said = 0, right = 0;
        for (std::size_t i = 0; i < seen.size(); ++i) {
            const auto wanted = data::said(attribute, caption(static_cast<std::int64_t>(i)));
            said += wanted.has_value();
            right += wanted == seen[i];
        }
        return static_cast<double>(right) / static_cast<double>(std::max<std::int64_t>(1, said));
    }

    std::shared_ptr<const data::Dataset> data_;
    std::vector<FeatureExtractor> classifiers_;
    std::unique_ptr<FeatureExtractor> features_;
    Tensor pictures_;
    Statistics reference_;
};

/// Of all pairs of wordings of a held-out scene that say the same, the share that goes to one student.
double paraphrase_stability(const inference::PromptedGenerator& generator) {
    std::int64_t pairs = 0, together = 0;
    for (const data::Scene& scene : data::scenes(true)) {
        const auto words = data::wordings(scene);
        const Tensor embeddings = generator.encoder().embed(words);
        for (std::size_t i = 0; i < words.size(); ++i) {
            for (std::size_t j = 0; j < i; ++j) {
                if (data::said(data::attribute("place"), words[i]) != data::said(data::attribute("place"), words[j])) continue;
                ++pairs;
                together += generator.place(embeddings[static_cast<std::int64_t>(i)]).student == generator.place(embeddings[static_cast<std::int64_t>(j)]).student;
            }
        }
    }
    return static_cast<double>(together) / static_cast<double>(pairs);
}

Tensor drawn(inference::PromptedGenerator& generator, const CaptionYardstick& yardstick, const std::string& name, std::int64_t count, std::uint64_t seed) {
    core::Progress progress("sampling " + name, count, "samples");
    std::vector<Tensor> parts;
    for (std::int64_t first = 0; first < count; first += drawn_at_once) {
        inference::Prompted wanted{seed, {}, {}};
        for (std::int64_t i = first; i < std::min(first + drawn_at_once, count); ++i) {
            wanted.numbers.push_back(i);
            wanted.prompts.push_back(yardstick.caption(i));
        }
        parts.push_back(generator.draw(wanted));
        progress.update(first + static_cast<std::int64_t>(wanted.numbers.size()));
    }
    return at::cat(parts);
}

std::vector<double> shares(const inference::PromptedGenerator& generator, const CaptionYardstick& yardstick, std::int64_t count) {
    std::vector<std::string> prompts;
    for (std::int64_t i = 0; i < count; ++i) prompts.push_back(yardstick.caption(i));
    const Tensor embeddings = generator.encoder().embed(prompts);
    std::vector<double> of(static_cast<std::size_t>(generator.students()));
    for (std::int64_t i = 0; i < count; ++i) of[static_cast<std::size_t>(generator.place(embeddings[i]).student)] += 1.0 / static_cast<double>(count);
    return of;
}

nlohmann::json protocol_of(const Measuring& measuring, const CaptionYardstick& yardstick, const nlohmann::json& model) {
    return {{"count", measuring.count}, {"seeds", measuring.seeds}, {"reference", {{"path", measuring.data}, {"hash", yardstick.hash()}, {"count", yardstick.size()}}},
            {"classifier", measuring.classifier}, {"model", model}, {"program", "atelier " ATELIER_VERSION}};
}

nlohmann::json measured(const Measuring& measuring, const CaptionYardstick& yardstick, const std::string& name, inference::PromptedGenerator& generator) {
    std::vector<distillation::Metrics> draws;
    for (const std::uint64_t seed : measuring.seeds) draws.push_back(yardstick.measure(drawn(generator, yardstick, name, measuring.count, seed)));
    if (generator.students() > 1) {
        for (auto& draw : draws) draw.emplace_back("paraphrase_stability", paraphrase_stability(generator));
    }
    std::vector<const distillation::Metrics*> all;
    for (const auto& draw : draws) all.push_back(&draw);
    nlohmann::json result{{"kind", "image"}, {"metrics", summaries(all)}, {"classes", nlohmann::json::array()},
                          {"evaluations", generator.sampling().evaluations()}, {"students", generator.students()},
                          {"parameters", generator.parameters_of_student(0)}, {"shares", shares(generator, yardstick, measuring.count)},
                          {"protocol", protocol_of(measuring, yardstick, {{"name", name}, {"hashes", generator.hashes()}, {"guidance", generator.guidance()},
                                                                          {"sampler", inference::name_of(generator.sampling().method)},
                                                                          {"engine", inference::name_of(generator.engine().kind)},
                                                                          {"precision", inference::name_of(generator.engine().precision)}})}};
    if (measuring.latency) result["latency"] = to_json(median_seconds([&] { generator.draw({0, {0}, {yardstick.caption(0)}}); }));
    return result;
}

/// What the classifiers see in the pictures that belong to the captions: no model can be expected to do better.
nlohmann::json measured_pictures(const Measuring& measuring, const CaptionYardstick& yardstick) {
    const auto metrics = yardstick.measure(yardstick.pictures().narrow(0, 0, std::min(measuring.count, yardstick.size())));
    return {{"kind", "image"}, {"metrics", summaries({&metrics})}, {"classes", nlohmann::json::array()},
            {"protocol", protocol_of(measuring, yardstick, {{"name", "real pictures"}})}};
}

}  // namespace

nlohmann::json measure_captions(const Measuring& measuring, const std::vector<std::pair<std::string, inference::PromptedGenerator*>>& models) {
    const CaptionYardstick yardstick(measuring);
    const std::string real = "real pictures";
    nlohmann::json results{{real, measured_pictures(measuring, yardstick)}}, order{real};
    for (const auto& [name, generator] : models) {
        results[name] = measured(measuring, yardstick, name, *generator);
        order.push_back(name);
    }
    return {{"order", order}, {"models", results}};
}

}  // namespace atelier::evaluation
