#include "atelier/metrics/caption_measuring.h"

#include <algorithm>
#include <optional>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/data/sampling.h"
#include "atelier/metrics/caption_attributes.h"
#include "atelier/metrics/latency.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t samples_per_batch = 500;

/// `config` without the default classifier, which knows classes and not these captions.
EvaluationConfig with_classifier(EvaluationConfig config) {
    if (config.classifier == default_classifier) config.classifier.clear();
    return config;
}

/// Counts, image by image, how often the attribute classifiers agree with the captions.
class Agreements {
public:
    Agreements(const std::vector<CaptionAttribute>& attributes,
               const std::vector<FeatureExtractor>& classifiers,
               std::function<const std::string&(std::int64_t)> caption)
        : attributes_(attributes),
          classifiers_(classifiers),
          caption_(std::move(caption)),
          mentioned_(classifiers.size()),
          agreeing_(classifiers.size()) {}

    /// What the classifiers take images for: model space, quantised to 8 bits.
    static backends::Parameters answers(const std::vector<FeatureExtractor>& classifiers,
                                        const Tensor& images) {
        backends::Parameters all;
        for (std::size_t a = 0; a < classifiers.size(); ++a)
            all.set(
                fmt::format("attribute/{}", a),
                at::tensor(predicted_classes(classifiers[a].features(images).logits), at::kLong));
        return all;
    }

    /// Adds the answers for images of captions first, first+1, ...
    void add(std::int64_t first, const backends::Parameters& answers) {
        for (std::size_t a = 0; a < classifiers_.size(); ++a) {
            const Tensor& predicted = answers.at(fmt::format("attribute/{}", a));
            for (std::int64_t i = 0; i < predicted.size(0); ++i) {
                const auto expected = attributes_[a].class_in(caption_(first + i));
                mentioned_[a] += expected.has_value();
                agreeing_[a] += expected == predicted.const_data_ptr<std::int64_t>()[i];
            }
        }
    }

    /// Per attribute: the share of agreeing images among captions that mention the attribute.
    distillation::Metrics metrics() const {
        distillation::Metrics metrics;
        double sum = 0;
        for (std::size_t a = 0; a < classifiers_.size(); ++a) {
            metrics.emplace_back(attributes_[a].name + "_agreement",
                                 static_cast<double>(agreeing_[a]) /
                                     static_cast<double>(std::max<std::int64_t>(1, mentioned_[a])));
            sum += metrics.back().second;
        }
        if (!metrics.empty())
            metrics.emplace_back("mean_agreement", sum / static_cast<double>(classifiers_.size()));
        return metrics;
    }

private:
    const std::vector<CaptionAttribute>& attributes_;
    const std::vector<FeatureExtractor>& classifiers_;
    std::function<const std::string&(std::int64_t)> caption_;
    std::vector<std::int64_t> mentioned_, agreeing_;
};

/// Held-out captions and images, and the classifiers and feature space that evaluate samples.
class CaptionReference {
public:
    CaptionReference(const EvaluationConfig& config, const data::SampleSpec& sample_spec)
        : data_(data::open_dataset({.path = config.data, .split = config.split, .limit = 0})) {
        if (data_->captions().empty())
            core::fail(
                "{}: has no captions; text-conditional models are evaluated on captioned "
                "data",
                config.data);
        if (!data_->has_samples())
            core::fail("{}: contains captions only; models are evaluated on captioned images",
                       config.data);
        check_shape(*data_, sample_spec, config.data);
        CaptionAttributes named = attributes_of(config);
        attributes_ = std::move(named.attributes);
        paraphrases_ = std::move(named.paraphrases);
        for (const CaptionAttribute& attribute : attributes_)
            classifiers_.push_back(
                open_attribute_classifier(attribute, data_->spec(), config.device));
        selected_ = data::seeded_sample(*data_, config.count, 0, "captions asked for");
        const bool splits = size() >= 2 * config.count;
        if (splits) held_out_ = data::subset(data_, selected_);
        opened_ = open_spaces(config, data_->spec().shape.at(0));
        evaluator_ = std::make_unique<Evaluator>(
            splits ? data::subset(data_, unselected())
                   : data::subset(data_, data::consecutive(0, size())),
            spaces_of(opened_), protocol_of(config, config.data), config.parts);
    }

    /// The caption of sample i.
    const std::string& caption(std::int64_t i) const {
        const std::int64_t image = selected_[static_cast<std::size_t>(i) % selected_.size()];
        return data_->captions()[static_cast<std::size_t>(
            data_->labels()[static_cast<std::size_t>(image)])];
    }
    std::int64_t size() const { return data_->size(); }
    /// Groups of captions that say the same.
    const std::vector<std::vector<std::string>>& paraphrases() const { return paraphrases_; }
    const std::vector<CaptionAttribute>& attributes() const { return attributes_; }
    const std::vector<FeatureExtractor>& classifiers() const { return classifiers_; }
    const data::SampleSpec& spec() const { return data_->spec(); }
    const data::Dataset& data() const { return *data_; }
    /// The images whose captions are sampled, if they are disjoint from the reference; else null.
    const std::shared_ptr<const data::Dataset>& real() const { return held_out_; }
    Evaluator& evaluator() { return *evaluator_; }
    Agreements agreements() const {
        return {attributes_, classifiers_,
                [this](std::int64_t i) -> const std::string& { return caption(i); }};
    }

    /// `samples` quantised to 8 bits, in model space.
    Tensor quantised(const Tensor& samples) const {
        return data::to_model_space(spec(), data::to_user_space(spec(), samples));
    }

    using Draw = std::function<Tensor(std::uint64_t seed, std::int64_t first, std::int64_t n)>;

    /// A model, or images, whose rows first..first+n-1 come from `draw`, and whose description also
    /// names what judges them.
    EvaluationTarget target(const EvaluationConfig& config, const Draw& draw, std::string hash,
                            nlohmann::json description) const {
        for (const FeatureExtractor& classifier : classifiers_)
            description["classifiers"].push_back(classifier.hash());
        if (!config.attributes.empty())
            description["attributes"] = core::sha256_of_file(config.attributes);
        const SampleSource source = [this, draw](std::int64_t count, std::uint64_t seed) {
            Samples samples{.model_space = {},
                            .labels = {},
                            .count = count,
                            .read = [draw, seed](std::int64_t first, std::int64_t n) {
                                return draw(seed, first, n);
                            }};
            if (!classifiers_.empty())
                samples.ask = [this](const Tensor& rows) {
                    return Agreements::answers(classifiers_, quantised(rows));
                };
            return samples;
        };
        return {source, std::move(hash), std::move(description)};
    }

    /// Evaluates a target; `add` may append metrics to each seed's.
    nlohmann::json evaluate(const EvaluationConfig& config, EvaluationTarget target,
                            const std::function<void(distillation::Metrics&)>& add = {}) const {
        if (nlohmann::json result = earlier_result(config.earlier, evaluator_->protocol_of(target));
            !result.is_null()) {
            core::log::info("{}: evaluated before, its metrics are taken from {}",
                            target.description.at("name").get<std::string>(),
                            config.earlier.string());
            result["taken_from"] = config.earlier.string();
            return result;
        }
        std::vector<Agreements> per_seed(config.seeds.size(), agreements());
        std::size_t draws = 0;
        target.draw = [&, source = target.draw](std::int64_t count, std::uint64_t seed) {
            Samples samples = source(count, seed);
            samples.hear = [here = &per_seed[draws++]](std::int64_t first,
                                                       const backends::Parameters& answers) {
                here->add(first, answers);
            };
            return samples;
        };
        nlohmann::json result = evaluator_->evaluate(target);
        std::vector<distillation::Metrics> more;
        for (const Agreements& one : per_seed) {
            more.push_back(one.metrics());
            if (add) add(more.back());
        }
        std::vector<const distillation::Metrics*> all;
        for (const auto& one : more) all.push_back(&one);
        result["metrics"].update(summaries(all));
        return result;
    }

private:
    std::vector<std::int64_t> unselected() const {
        std::vector<std::int64_t> indices;
        for (std::int64_t i = 0; i < size(); ++i) {
            if (!std::ranges::binary_search(selected_, i)) indices.push_back(i);
        }
        return indices;
    }

    std::shared_ptr<const data::Dataset> data_, held_out_;
    std::vector<CaptionAttribute> attributes_;
    std::vector<std::vector<std::string>> paraphrases_;
    std::vector<FeatureExtractor> classifiers_;
    std::vector<std::int64_t> selected_;
    std::vector<std::unique_ptr<FeatureSpace>> opened_;
    std::unique_ptr<Evaluator> evaluator_;
};

/// The share of pairs within groups of captions that say the same that are routed to one student.
double paraphrase_stability(const inference::Pipeline& generator,
                            const std::vector<std::vector<std::string>>& groups) {
    std::int64_t pairs = 0, together = 0;
    for (const std::vector<std::string>& captions : groups) {
        const auto owners = generator.route(inference::conditions_of(captions));
        for (std::size_t i = 0; i < captions.size(); ++i) {
            for (std::size_t j = 0; j < i; ++j) {
                ++pairs;
                together += owners[i].student == owners[j].student;
            }
        }
    }
    return static_cast<double>(together) / static_cast<double>(pairs);
}

Tensor draw_samples(inference::Pipeline& generator, const CaptionReference& reference,
                    std::uint64_t seed, std::int64_t first, std::int64_t n) {
    std::vector<Tensor> parts;
    for (std::int64_t from = first; from < first + n; from += samples_per_batch) {
        std::vector<inference::SampleRequest> requests;
        for (std::int64_t i = from; i < std::min(from + samples_per_batch, first + n); ++i)
            requests.push_back({seed, i, reference.caption(i)});
        parts.push_back(generator.draw_decoded(requests));
    }
    return at::cat(parts);
}

std::vector<double> student_shares(const inference::Pipeline& generator,
                                   const CaptionReference& reference, std::int64_t count) {
    std::vector<std::string> prompts;
    for (std::int64_t i = 0; i < count; ++i) prompts.push_back(reference.caption(i));
    std::vector<double> shares(static_cast<std::size_t>(generator.students()));
    if (shares.size() == 1) return {1.0};
    for (const auto& owner : generator.route(inference::conditions_of(prompts)))
        shares[static_cast<std::size_t>(owner.student)] += 1.0 / static_cast<double>(count);
    return shares;
}

EvaluationTarget target_of(const EvaluationConfig& config, const CaptionReference& reference,
                           const std::string& name, inference::Pipeline& generator) {
    return reference.target(config,
                            [&](std::uint64_t seed, std::int64_t first, std::int64_t n) {
                                return draw_samples(generator, reference, seed, first, n);
                            },
                            generator.hash(),
                            {{"name", name},
                             {"hashes", generator.hashes()},
                             {"guidance", *generator.guidance()},
                             {"sampler", inference::name_of(generator.sampling())},
                             {"engine", inference::name_of(generator.engine().kind)},
                             {"precision", inference::name_of(generator.engine().precision)}});
}

/// Whether features of several networks are compared.
bool opened_several(const EvaluationConfig& config) {
    return !config.inception.empty() + !config.dinov2.empty() + !config.clip_features.empty() > 1;
}

nlohmann::json evaluate_model(const EvaluationConfig& config, const CaptionReference& reference,
                              const EvaluationTarget& target, inference::Pipeline& generator) {
    const bool paraphrases = !reference.paraphrases().empty() && generator.students() > 1;
    const double stability =
        paraphrases ? paraphrase_stability(generator, reference.paraphrases()) : 0;
    nlohmann::json result = reference.evaluate(config, target, [&](distillation::Metrics& metrics) {
        if (paraphrases) metrics.emplace_back("paraphrase_stability", stability);
    });
    if (result.contains("taken_from")) return result;
    result.update({{"evaluations", generator.sampling().evaluations()},
                   {"students", generator.students()},
                   {"parameters", generator.parameters_of_student(0)},
                   {"shares", student_shares(generator, reference, config.count)}});
    const std::vector<inference::SampleRequest> first_caption{{0, 0, reference.caption(0)}};
    if (config.latency)
        result["latency"] = to_json(median_seconds([&] { generator.draw(first_caption); }));
    return result;
}

/// Held-out images of the captions that samples are asked for; nothing where too few are left for
/// the reference.
std::optional<EvaluationTarget> real_target(const EvaluationConfig& config,
                                            const CaptionReference& reference,
                                            const std::string& name) {
    if (!reference.real()) return std::nullopt;
    return reference.target(config,
                            [&](std::uint64_t, std::int64_t first, std::int64_t n) {
                                return reference.real()->samples(data::consecutive(first, n));
                            },
                            reference.real()->hash(), {{"name", name}});
}

/// Evaluates real images with their own captions, the best that a model can be expected to reach.
/// Null when no metric applies.
nlohmann::json evaluate_real_images(const EvaluationConfig& config,
                                    const CaptionReference& reference, const std::string& name) {
    const nlohmann::json description{{"name", name}};
    if (const auto target = real_target(config, reference, name))
        return reference.evaluate(config, *target);
    core::log::info(
        "{}: has {} images, too few to keep {} of them out of the reference; real pictures get "
        "no distance (a count up to {} leaves some)",
        config.data, reference.size(), config.count, reference.size() / 2);
    if (reference.classifiers().empty()) return nullptr;
    Agreements agreements(reference.attributes(), reference.classifiers(),
                          [&](std::int64_t i) -> const std::string& {
                              return reference.data().captions()[static_cast<std::size_t>(
                                  reference.data().labels()[static_cast<std::size_t>(i)])];
                          });
    for (std::int64_t first = 0; first < reference.size(); first += samples_per_batch) {
        agreements.add(first,
                       Agreements::answers(
                           reference.classifiers(),
                           reference.quantised(reference.data().samples(data::consecutive(
                               first, std::min(samples_per_batch, reference.size() - first))))));
    }
    const distillation::Metrics metrics = agreements.metrics();
    return {{"kind", "image"},
            {"metrics", summaries({&metrics})},
            {"classes", nlohmann::json::array()},
            {"protocol",
             {{"name", config.protocol.name},
              {"count", reference.size()},
              {"model", description},
              {"program", "atelier " ATELIER_VERSION}}}};
}

}  // namespace

CaptionAttributes attributes_of(const EvaluationConfig& config) {
    if (config.attributes.empty()) return {};
    return read_caption_attributes(config.attributes);
}

FeatureExtractor open_attribute_classifier(const CaptionAttribute& attribute,
                                           const data::SampleSpec& spec, at::Device device) {
    FeatureExtractor classifier(attribute.classifier, device);
    const networks::ClassifierConfig& config = classifier.config();
    const std::vector<std::int64_t> reads{config.channels, config.resolution, config.resolution};
    if (spec.shape != reads)
        core::fail("{}: the classifier of \"{}\" reads images {}, these are {}",
                   attribute.classifier.string(), attribute.name, core::to_string(reads),
                   core::to_string(spec.shape));
    if (config.classes != attribute.classes)
        core::fail("{}: the classifier of \"{}\" knows {} classes, the attribute has {} values",
                   attribute.classifier.string(), attribute.name, config.classes,
                   attribute.classes);
    return classifier;
}

nlohmann::json measure_captions(const EvaluationConfig& requested, const EvaluatedModels& models) {
    const EvaluationConfig config = with_classifier(requested);
    if (!config.real.empty())
        throw core::UsageError(
            "--real, evaluate.real: of captioned data, real pictures are measured without; leave "
            "it out");
    CaptionReference reference(config, models.front().second->decoded_spec());
    const std::string real = "real pictures";
    std::vector<EvaluationTarget> targets;
    for (const auto& [name, generator] : models)
        targets.push_back(target_of(config, reference, name, *generator));
    if (config.parts) {
        std::vector<NamedTarget> shared;
        if (const auto target = real_target(config, reference, real))
            shared.emplace_back(real, *target);
        for (std::size_t i = 0; i < models.size(); ++i)
            shared.emplace_back(models[i].first, targets[i]);
        if (const auto result = share_parts(config, reference.evaluator(), shared)) return *result;
    }
    nlohmann::json results = nlohmann::json::object(), order = nlohmann::json::array();
    if (nlohmann::json pictures = evaluate_real_images(config, reference, real);
        !pictures.is_null()) {
        results[real] = std::move(pictures);
        order.push_back(real);
    }
    for (std::size_t i = 0; i < models.size(); ++i) {
        const auto& [name, generator] = models[i];
        results[name] = evaluate_model(config, reference, targets[i], *generator);
        order.push_back(name);
    }
    // The row of real pictures is at hand.
    if (opened_several(config)) add_ratios(results, real);
    return {{"order", order}, {"models", results}};
}

}  // namespace atelier::metrics
