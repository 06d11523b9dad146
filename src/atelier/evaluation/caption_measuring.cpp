#include "atelier/evaluation/caption_measuring.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/data/caption_grammar.h"
#include "atelier/data/captioned_images.h"
#include "atelier/data/sampling.h"
#include "atelier/evaluation/latency.h"

namespace atelier::evaluation {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t drawn_together = 500;

/// `measuring` with the classifier that is right for these captions where none was chosen.
Measuring with_classifier(Measuring measuring) {
    if (measuring.classifier != usual_classifier) return measuring;
    const bool composed =
        data::is_composed(measuring.data) && fs::exists(usual_caption_classifier);
    measuring.classifier = composed ? usual_caption_classifier : "";
    return measuring;
}

/// What classifiers see of what captions say, counted as pictures go by.
class Agreements {
public:
    Agreements(const std::vector<FeatureExtractor>& classifiers,
               std::function<const std::string&(std::int64_t)> caption)
        : classifiers_(classifiers),
          caption_(std::move(caption)),
          said_(classifiers.size()),
          right_(classifiers.size()) {}

    /// Pictures in model space, as the pixels of a file, for captions first, first+1, ...
    void see(std::int64_t first, const Tensor& pictures) {
        for (std::size_t a = 0; a < classifiers_.size(); ++a) {
            const std::vector<std::int64_t> seen =
                predicted_classes(classifiers_[a].features(pictures).logits);
            for (std::size_t i = 0; i < seen.size(); ++i) {
                const auto wanted = data::said(data::attributes()[a],
                                               caption_(first + static_cast<std::int64_t>(i)));
                said_[a] += wanted.has_value();
                right_[a] += wanted == seen[i];
            }
        }
    }

    /// Among captions that say something of an attribute.
    distillation::Metrics metrics() const {
        distillation::Metrics metrics;
        double sum = 0;
        for (std::size_t a = 0; a < classifiers_.size(); ++a) {
            metrics.emplace_back(std::string(data::attributes()[a].name) + "_agreement",
                                 static_cast<double>(right_[a]) /
                                     static_cast<double>(std::max<std::int64_t>(1, said_[a])));
            sum += metrics.back().second;
        }
        if (!metrics.empty())
            metrics.emplace_back("mean_agreement", sum / static_cast<double>(classifiers_.size()));
        return metrics;
    }

private:
    const std::vector<FeatureExtractor>& classifiers_;
    std::function<const std::string&(std::int64_t)> caption_;
    std::vector<std::int64_t> said_, right_;
};

/// Held-out captions and pictures, and what looks at them.
class CaptionYardstick {
public:
    CaptionYardstick(const Measuring& measuring, const models::DataForm& drawn)
        : data_(
              data::open_dataset({.path = measuring.data, .split = measuring.split, .limit = 0})) {
        if (data_->captions().empty()) core::fail("{}: has no captions; a model that reads prompts is measured against captioned data", measuring.data);
        if (!data_->has_samples())
            core::fail("{}: are captions alone; a model is measured against captioned images",
                       measuring.data);
        check_shape(*data_, drawn, measuring.data);
        composed_ = data::is_composed(measuring.data);
        if (composed_ && measuring.inception.empty() && !measuring.classifier.empty()) {
            for (const data::Attribute& attribute : data::attributes())
                classifiers_.emplace_back(
                    fs::path(measuring.classifier).parent_path() / attribute.name,
                    measuring.device);
        }
        asked_ = data::seeded_sample(*data_, measuring.count, 0, "captions asked for");
        const bool splits = size() >= 2 * measuring.count;
        if (splits) real_ = data::subset(data_, asked_);
        space_ = open_space(measuring, data_->form().shape.at(0));
        evaluator_ =
            std::make_unique<Evaluator>(splits ? data::subset(data_, others())
                                               : data::subset(data_, data::consecutive(0, size())),
                                        space_.get(), protocol_of(measuring, measuring.data));
    }

    /// Which caption number i of the draws asks for.
    const std::string& caption(std::int64_t i) const {
        const std::int64_t picture = asked_[static_cast<std::size_t>(i) % asked_.size()];
        return data_->captions()[static_cast<std::size_t>(
            data_->labels()[static_cast<std::size_t>(picture)])];
    }
    std::int64_t size() const { return data_->size(); }
    /// Whether captions follow the program's own grammar.
    bool composed() const { return composed_; }
    const std::vector<FeatureExtractor>& classifiers() const { return classifiers_; }
    const models::DataForm& form() const { return data_->form(); }
    const data::Dataset& data() const { return *data_; }
    /// The pictures whose captions are asked for, where they have no part in the reference; else
    /// null.
    const std::shared_ptr<const data::Dataset>& real() const { return real_; }
    const Evaluator& evaluator() const { return *evaluator_; }
    Agreements agreements() const {
        return {classifiers_, [this](std::int64_t i) -> const std::string& { return caption(i); }};
    }

    /// The pixels of a file, in model space.
    Tensor as_seen(const Tensor& samples) const {
        return models::to_model_space(form(), models::to_user_space(form(), samples));
    }

    /// What `draw` makes of rows first..first+n-1, measured; `agreements` gets a figure per seed.
    nlohmann::json measured(
        const Measuring& measuring,
        const std::function<Tensor(std::uint64_t seed, std::int64_t first, std::int64_t n)>& draw,
        const std::string& hash, const nlohmann::json& about,
        const std::function<void(distillation::Metrics&)>& add = {}) const {
        std::vector<Agreements> seen(measuring.seeds.size(), agreements());
        std::size_t draws = 0;
        const SampleSource source = [&](std::int64_t count, std::uint64_t seed) {
            Agreements* here = &seen[draws++];
            return Samples{.model_space = {},
                           .labels = {},
                           .count = count,
                           .read = [this, &draw, here, seed](std::int64_t first, std::int64_t n) {
                               const Tensor samples = draw(seed, first, n);
                               if (!classifiers_.empty()) here->see(first, as_seen(samples));
                               return samples;
                           }};
        };
        nlohmann::json result = evaluator_->evaluate({source, hash, about});
        std::vector<distillation::Metrics> more;
        for (const Agreements& one : seen) {
            more.push_back(one.metrics());
            if (add) add(more.back());
        }
        std::vector<const distillation::Metrics*> all;
        for (const auto& one : more) all.push_back(&one);
        result["metrics"].update(summaries(all));
        return result;
    }

private:
    std::vector<std::int64_t> others() const {
        std::vector<std::int64_t> rest;
        for (std::int64_t i = 0; i < size(); ++i) {
            if (!std::ranges::binary_search(asked_, i)) rest.push_back(i);
        }
        return rest;
    }

    std::shared_ptr<const data::Dataset> data_, real_;
    bool composed_ = false;
    std::vector<FeatureExtractor> classifiers_;
    std::vector<std::int64_t> asked_;
    std::unique_ptr<FeatureSpace> space_;
    std::unique_ptr<Evaluator> evaluator_;
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

Tensor drawn(inference::PromptedGenerator& generator, const CaptionYardstick& yardstick,
             std::uint64_t seed, std::int64_t first, std::int64_t n) {
    std::vector<Tensor> parts;
    for (std::int64_t from = first; from < first + n; from += drawn_together) {
        inference::Prompted wanted{seed, {}, {}};
        for (std::int64_t i = from; i < std::min(from + drawn_together, first + n); ++i) {
            wanted.numbers.push_back(i);
            wanted.prompts.push_back(yardstick.caption(i));
        }
        parts.push_back(generator.draw(wanted));
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

nlohmann::json measured_model(const Measuring& measuring, const CaptionYardstick& yardstick,
                              const std::string& name, inference::PromptedGenerator& generator) {
    const auto draw = [&](std::uint64_t seed, std::int64_t first, std::int64_t n) {
        return drawn(generator, yardstick, seed, first, n);
    };
    const bool paraphrases = yardstick.composed() && generator.students() > 1;
    const double stability = paraphrases ? paraphrase_stability(generator) : 0;
    const nlohmann::json about{{"name", name},
                               {"hashes", generator.hashes()},
                               {"guidance", generator.guidance()},
                               {"sampler", inference::name_of(generator.sampling())},
                               {"engine", inference::name_of(generator.engine().kind)},
                               {"precision", inference::name_of(generator.engine().precision)}};
    nlohmann::json result =
        yardstick.measured(measuring, draw, inference::hash_of(generator.hashes()), about,
                           [&](distillation::Metrics& metrics) {
                               if (paraphrases)
                                   metrics.emplace_back("paraphrase_stability", stability);
                           });
    result.update({{"evaluations", generator.sampling().evaluations()},
                   {"students", generator.students()},
                   {"parameters", generator.parameters_of_student(0)},
                   {"shares", shares(generator, yardstick, measuring.count)}});
    if (measuring.latency) result["latency"] = to_json(median_seconds([&] { generator.draw({0, {0}, {yardstick.caption(0)}}); }));
    return result;
}

/// What is seen of pictures that belong to their captions: no model can be expected to do better.
/// Null where there is nothing to say.
nlohmann::json measured_pictures(const Measuring& measuring, const CaptionYardstick& yardstick,
                                 const std::string& name) {
    const nlohmann::json about{{"name", name}};
    if (yardstick.real()) {
        const auto draw = [&](std::uint64_t, std::int64_t first, std::int64_t n) {
            return yardstick.real()->samples(data::consecutive(first, n));
        };
        return yardstick.measured(measuring, draw, yardstick.real()->hash(), about);
    }
    core::log::info(
        "{}: has {} pictures, too few to keep {} of them out of the reference; real pictures get "
        "no distance (a count up to {} leaves some)",
        measuring.data, yardstick.size(), measuring.count, yardstick.size() / 2);
    if (yardstick.classifiers().empty()) return nullptr;
    Agreements seen(yardstick.classifiers(), [&](std::int64_t i) -> const std::string& {
        return yardstick.data().captions()[static_cast<std::size_t>(
            yardstick.data().labels()[static_cast<std::size_t>(i)])];
    });
    for (std::int64_t first = 0; first < yardstick.size(); first += drawn_together) {
        seen.see(first, yardstick.as_seen(yardstick.data().samples(data::consecutive(
                            first, std::min(drawn_together, yardstick.size() - first)))));
    }
    const distillation::Metrics metrics = seen.metrics();
    return {{"kind", "image"},
            {"metrics", summaries({&metrics})},
            {"classes", nlohmann::json::array()},
            {"protocol",
             {{"name", measuring.protocol.name},
              {"count", yardstick.size()},
              {"model", about},
              {"program", "atelier " ATELIER_VERSION}}}};
}

}  // namespace

nlohmann::json measure_captions(
    const Measuring& asked,
    const std::vector<std::pair<std::string, inference::PromptedGenerator*>>& models) {
    const Measuring measuring = with_classifier(asked);
    const CaptionYardstick yardstick(measuring, models.front().second->form());
    const std::string real = "real pictures";
    nlohmann::json results = nlohmann::json::object(), order = nlohmann::json::array();
    if (nlohmann::json pictures = measured_pictures(measuring, yardstick, real);
        !pictures.is_null()) {
        results[real] = std::move(pictures);
        order.push_back(real);
    }
    for (const auto& [name, generator] : models) {
        results[name] = measured_model(measuring, yardstick, name, *generator);
        order.push_back(name);
    }
    return {{"order", order}, {"models", results}};
}

}  // namespace atelier::evaluation
