#include "atelier/metrics/measuring.h"

#include <algorithm>
#include <limits>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/resize.h"
#include "atelier/core/signals.h"
#include "atelier/data/sampling.h"
#include "atelier/data/toy_points.h"
#include "atelier/metrics/caption_measuring.h"
#include "atelier/metrics/clip.h"
#include "atelier/metrics/dinov2.h"
#include "atelier/metrics/inception.h"
#include "atelier/metrics/latency.h"
#include "atelier/metrics/statistics_file.h"

namespace atelier::metrics {

namespace {

constexpr std::int64_t clip_batch = 500;

/// Images resized as in DMD2's evaluation: centre crop to a square, Lanczos to `side` pixels,
/// rounded to 8 bits.
class SquareImages final : public data::Dataset {
public:
    SquareImages(std::shared_ptr<const data::Dataset> images, std::int64_t side)
        : images_(std::move(images)), side_(static_cast<int>(side)), spec_(images_->spec()) {
        spec_.shape = {spec_.shape[0], side, side};
        hash_ = core::sha256(fmt::format("square {} {}", side, images_->hash()));
    }

    std::int64_t size() const override { return images_->size(); }
    std::int64_t classes() const override { return images_->classes(); }
    const std::vector<std::int64_t>& labels() const override { return images_->labels(); }
    const std::vector<std::string>& captions() const override { return images_->captions(); }
    const data::SampleSpec& spec() const override { return spec_; }
    const std::string& hash() const override { return hash_; }

    Tensor samples(std::span<const std::int64_t> indices) const override {
        const Tensor whole = data::to_user_space(images_->spec(), images_->samples(indices));
        const Tensor small = at::empty({whole.size(0), side_, side_, whole.size(3)}, at::kByte);
        for (std::int64_t i = 0; i < whole.size(0); ++i) {
            core::Image image =
                core::centre_crop(data::image_of(whole[i]), side_, core::ResizeFilter::lanczos);
            small[i].copy_(
                at::from_blob(image.pixels.data(), {side_, side_, whole.size(3)}, at::kByte));
        }
        return data::to_model_space(spec_, small);
    }

private:
    std::shared_ptr<const data::Dataset> images_;
    int side_;
    data::SampleSpec spec_;
    std::string hash_;
};

/// Samples are generated as they are read, so that only one batch is in memory.
SampleSource sample_source(inference::Pipeline& pipeline, ClassDraws draws) {
    return [&pipeline, draws](std::int64_t count, std::uint64_t seed) {
        const auto all = std::make_shared<const std::vector<inference::SampleRequest>>(
            drawn_classes(draws, count, seed, pipeline.prior()));
        return Samples{.model_space = {},
                       .labels = inference::classes_of(*all),
                       .count = count,
                       .read = [&pipeline, all](std::int64_t first, std::int64_t n) {
                           return pipeline.draw_decoded(std::span(*all).subspan(
                               static_cast<std::size_t>(first), static_cast<std::size_t>(n)));
                       }};
    };
}

nlohmann::json latency_of(inference::Pipeline& pipeline) {
    const auto one = inference::class_requests(1, 0, {}, pipeline.prior());
    return to_json(median_seconds([&] { pipeline.draw(one); }));
}

/// `protocol` without the model's name and the reference's path, which change no metric.
nlohmann::json without_names(nlohmann::json protocol) {
    protocol["model"].erase("name");
    protocol["model"].emplace("engine", "torch");  // results older than these keys
    protocol["model"].emplace("precision", "fp32");
    protocol["reference"].erase("path");
    return protocol;
}

nlohmann::json evaluate_model(const EvaluationConfig& config, const Evaluator& evaluator,
                              inference::Pipeline& generator, const EvaluationTarget& target) {
    const inference::Sampling& sampling = generator.sampling();
    nlohmann::json result = evaluator.evaluate(target);
    std::int64_t parameters = 0;
    for (std::int64_t k = 0; k < generator.students(); ++k)
        parameters = std::max(parameters, generator.parameters_of_student(k));
    result["evaluations"] = sampling.evaluations();
    result["parameters"] = parameters;
    result["students"] = generator.students();
    if (config.latency) result["latency"] = latency_of(generator);
    return result;
}

/// `images`, resized to the protocol's `side` if necessary.
std::shared_ptr<const data::Dataset> resized(std::shared_ptr<const data::Dataset> images,
                                             std::int64_t side) {
    const data::SampleSpec& spec = images->spec();
    if (side == 0 || spec.kind != data::SampleSpec::Kind::image ||
        (spec.shape[1] == side && spec.shape[2] == side))
        return images;
    return std::make_shared<SquareImages>(std::move(images), side);
}

/// An evaluator with its reference and, for images, feature space.
class ReferenceEvaluator {
public:
    ReferenceEvaluator(const EvaluationConfig& config, const data::SampleSpec& spec) {
        if (spec.kind == data::SampleSpec::Kind::image)
            opened_ = open_spaces(config, spec.shape[0]);
        else if (!config.inception.empty() || !config.dinov2.empty() ||
                 !config.clip_features.empty() || !config.real.empty() || !config.reference.empty())
            core::fail(
                "features of networks, real images and reference statistics are for images; this "
                "model draws points");
        if (config.reference.empty()) {
            const auto data = resized(
                data::open_dataset({.path = config.data, .split = config.split, .limit = 0}),
                config.protocol.side);
            check_shape(*data, spec, config.data);
            evaluator_ = std::make_unique<Evaluator>(
                data, spaces_of(opened_), protocol_of(config, config.data), config.parts);
        } else {
            if (opened_.size() > 1)
                core::fail(
                    "{}: holds statistics of one network's features, and {} networks are given; "
                    "give --data, or one of them",
                    config.reference, opened_.size());
            const FeatureSpace& space = *opened_.front();
            const Statistics statistics = read_statistics(config.reference, space.width());
            evaluator_ = std::make_unique<Evaluator>(
                statistics, core::sha256_of_file(config.reference), spec, space,
                protocol_of(config, config.reference), config.parts);
        }
        if (!config.parts) save_reference(config);
    }

    const Evaluator& evaluator() const { return *evaluator_; }

    /// share_parts, and the reference's statistics where they are to be saved.
    std::optional<nlohmann::json> share(const EvaluationConfig& config,
                                        std::span<const NamedTarget> targets) {
        if (!config.parts) return std::nullopt;
        auto result = share_parts(config, *evaluator_, targets);
        if (!result) save_reference(config);
        return result;
    }

private:
    void save_reference(const EvaluationConfig& config) const {
        if (config.save_reference.empty()) return;
        if (!evaluator_->reference_statistics())
            core::fail("statistics of features are written of images; these are points");
        write_statistics(config.save_reference, *evaluator_->reference_statistics());
    }

    std::vector<std::unique_ptr<FeatureSpace>> opened_;
    std::unique_ptr<Evaluator> evaluator_;
};

/// The name under which the images of `config.real` are listed.
constexpr const char* real_row = "real images";

/// As many of the images of `config.real` as samples are measured, since a Frechet distance falls
/// with their number.
NamedTarget row_of_real_images(const EvaluationConfig& config, const data::SampleSpec& spec,
                               const Evaluator& evaluator) {
    const auto images = open_real(config);
    check_shape(*images, spec, config.real);
    if (images->size() < config.count)
        core::fail(
            "{}: has {} images, and {} samples are measured: their distances are compared at equal "
            "counts; give more, or a count up to {}",
            config.real, images->size(), config.count, images->size());
    NamedTarget target{real_row,
                       {real_samples(images),
                        images->hash(),
                        {{"name", real_row}, {"path", config.real}, {"images", images->size()}}}};
    if (evaluator.protocol_of(target.second)["reference"]["hash"] == images->hash())
        core::fail(
            "{}: these are the images that samples are measured against, so their own distance is "
            "0; name others, or another --split",
            config.real);
    return target;
}

/// The mean over the distances in `names` of each value of `row`, divided by the mean of `real`'s;
/// null where one is undefined or the real images' is not above 0.
nlohmann::json mean_ratio(const nlohmann::json& row, const nlohmann::json& real,
                          const std::vector<std::string>& names) {
    std::vector<distillation::Metrics> draws(row.at(names.front()).at("values").size(),
                                             {{"fdr", std::numeric_limits<double>::quiet_NaN()}});
    for (std::size_t i = 0; i < draws.size(); ++i) {
        double sum = 0;
        for (const std::string& name : names) {
            const nlohmann::json &value = row.at(name).at("values").at(i),
                                 &of_real = real.at(name).at("mean");
            const bool defined =
                value.is_number() && of_real.is_number() && of_real.get<double>() > 0;
            sum += defined ? value.get<double>() / of_real.get<double>()
                           : std::numeric_limits<double>::quiet_NaN();
        }
        draws[i].front().second = sum / static_cast<double>(names.size());
    }
    std::vector<const distillation::Metrics*> all;
    for (const distillation::Metrics& draw : draws) all.push_back(&draw);
    return summaries(all).at("fdr");
}

/// The result of an earlier evaluation with rows by the cells of this partition or without any.
void forget_other_cells(nlohmann::json& result, const conditions::Partition& partition) {
    if (!result.contains("partition") || result["partition"] == partition.hash()) return;
    result.erase("partition");
    result.erase("cells");
}

/// CLIP score: the mean of max(0, 100 cos(image, caption)) (Hessel et al. 2021, scaled as in
/// torchmetrics).
double clip_score(const Clip& clip, const data::Dataset& images,
                  std::span<const std::string> captions) {
    const auto count = static_cast<std::int64_t>(captions.size());
    const std::int64_t batch = data::samples_per_batch(images.spec().shape, clip_batch);
    core::Progress progress("CLIP score", count, "images");
    double sum = 0;
    for (std::int64_t first = 0; first < count; first += batch) {
        if (core::stop_requested())
            throw core::Interrupted("interrupted while measuring; nothing was written");
        const std::int64_t n = std::min(batch, count - first);
        const Tensor image_embeddings = clip.images(
            data::to_user_space(images.spec(), images.samples(data::consecutive(first, n))));
        const Tensor text_embeddings = clip.texts(
            captions.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)));
        sum += (100 * (image_embeddings * text_embeddings).sum(1))
                   .clamp_min(0)
                   .sum(at::kDouble)
                   .item<double>();
        progress.update(first + n);
    }
    return sum / static_cast<double>(count);
}

void add_clip_score(nlohmann::json& result, const EvaluationConfig& config,
                    const data::Dataset& images, std::span<const std::string> captions) {
    const Clip clip(config.clip, config.device);
    std::vector<std::string> texts;
    for (const std::string& caption : captions)
        texts.push_back(config.protocol.caption_prefix + caption);
    const distillation::Metrics draw{{"clip_score", clip_score(clip, images, texts)}};
    result["metrics"].update(summaries({&draw}));
    result["protocol"]["clip"] = clip.hash();
    result["protocol"]["captions"] = core::sha256_of_lines(captions);
    if (!config.protocol.caption_prefix.empty())
        result["protocol"]["caption_prefix"] = config.protocol.caption_prefix;
}

/// Existing images, and which of them are evaluated.
struct ImageSet {
    std::shared_ptr<const data::Dataset> images;
    std::int64_t count;

    bool all() const { return count == images->size(); }
    std::vector<std::int64_t> chosen(std::uint64_t seed) const {
        return data::seeded_sample(*images, count, seed, "measured images");
    }

    Samples draw(std::uint64_t seed) const {
        const auto order = std::make_shared<const std::vector<std::int64_t>>(chosen(seed));
        Samples samples{.model_space = {},
                        .labels = {},
                        .count = count,
                        .read = [images = images, order](std::int64_t first, std::int64_t n) {
                            return images->samples(std::span(*order).subspan(
                                static_cast<std::size_t>(first), static_cast<std::size_t>(n)));
                        }};
        if (!images->labels().empty()) {
            for (const std::int64_t i : *order)
                samples.labels.push_back(images->labels()[static_cast<std::size_t>(i)]);
        }
        return samples;
    }
};

}  // namespace

nlohmann::json earlier_result(const std::filesystem::path& path, const nlohmann::json& protocol) {
    if (path.empty() || !std::filesystem::exists(path)) return nullptr;
    try {
        const nlohmann::json results = core::read_json(path), requested = without_names(protocol);
        for (const auto& [name, result] : results.at("models").items()) {
            if (without_names(result.at("protocol")) == requested) return result;
        }
    } catch (const std::exception& error) {
        core::log::warning("{} is not used: {}", path.string(), error.what());
    }
    return nullptr;
}

std::optional<nlohmann::json> share_parts(const EvaluationConfig& config, Evaluator& evaluator,
                                          std::span<const NamedTarget> targets) {
    nlohmann::json protocols = nlohmann::json::object();
    for (const auto& [name, target] : targets) protocols[name] = evaluator.protocol_of(target);
    EvaluationParts& parts = *config.parts;
    if (nlohmann::json result = parts.finished(protocols); !result.is_null())
        return std::make_optional<nlohmann::json>(std::move(result));
    parts.begin(protocols);
    evaluator.share_reference();
    for (const auto& [name, target] : targets) {
        if (earlier_result(config.earlier, protocols[name]).is_null()) evaluator.share(target);
    }
    // Another may have found all parts, written the result and removed them meanwhile.
    if (!parts.complete()) return std::make_optional<nlohmann::json>(parts.finished(protocols));
    evaluator.read_reference();
    return std::nullopt;
}

nlohmann::json with_parts(const EvaluationConfig& config,
                          const std::function<nlohmann::json()>& measure) {
    try {
        return measure();
    } catch (const core::Error&) {
        if (!config.parts || !config.parts->removed_by_another()) throw;
    }
    return measure();
}

nlohmann::json measure(const EvaluationConfig& requested, const EvaluatedModels& models) {
    if (models.front().second->reads_prompts()) return measure_captions(requested, models);
    EvaluationConfig config = requested;
    for (const auto& [name, generator] : models) {
        if (config.partition.students < generator->students())
            config.partition = generator->partition();
    }
    ReferenceEvaluator reference(config, models.front().second->decoded_spec());
    const Evaluator& evaluator = reference.evaluator();
    std::vector<NamedTarget> targets;
    if (!config.real.empty())
        targets.push_back(
            row_of_real_images(config, models.front().second->decoded_spec(), evaluator));
    const std::size_t first_model = targets.size();
    for (const auto& [name, generator] : models) {
        const inference::Sampling& sampling = generator->sampling();
        targets.emplace_back(
            name,
            EvaluationTarget{sample_source(*generator, config.protocol.classes),
                             generator->hash(),
                             {{"name", name},
                              {"sampler", inference::name_of(sampling)},
                              {"evaluations", sampling.evaluations()},
                              {"engine", inference::name_of(generator->engine().kind)},
                              {"precision", inference::name_of(generator->engine().precision)}}});
    }
    if (auto shared = reference.share(config, targets)) return *shared;
    nlohmann::json results = nlohmann::json::object();
    nlohmann::json order = nlohmann::json::array();
    for (std::size_t i = 0; i < targets.size(); ++i) {
        const auto& [name, target] = targets[i];
        results[name] = earlier_result(config.earlier, evaluator.protocol_of(target));
        if (results[name].is_null()) {
            results[name] =
                i < first_model
                    ? evaluator.evaluate(target)
                    : evaluate_model(config, evaluator, *models[i - first_model].second, target);
        } else {
            forget_other_cells(results[name], config.partition);
            core::log::info("{}: evaluated before, its metrics are taken from {}", name,
                            config.earlier.string());
            results[name]["taken_from"] = config.earlier.string();
        }
        order.push_back(name);
    }
    if (first_model > 0) results[real_row]["protocol"].erase("classes");  // none were drawn
    add_ratios(results, real_row);
    // The models come first, where readers expect them.
    std::ranges::rotate(order, order.begin() + static_cast<std::ptrdiff_t>(first_model));
    return {{"order", order}, {"models", results}};
}

nlohmann::json measure_images(EvaluationConfig config, const std::string& path,
                              std::span<const std::string> captions, std::string name) {
    if (name.empty()) name = path;
    const ImageSet image_set = [&] {
        const auto images =
            resized(data::open_dataset({.path = path, .split = "train", .limit = 0, .gaps = true}),
                    config.protocol.side);
        return ImageSet{images, std::min(config.count, images->size())};
    }();
    const data::Dataset& images = *image_set.images;
    if (images.spec().kind != data::SampleSpec::Kind::image)
        core::fail("{}: holds points; only images are measured without a model", path);
    if (config.count > images.size())
        core::log::info("{}: has {} images, all of them are measured", path, images.size());
    if (image_set.all()) config.seeds.resize(1);
    else
        core::log::warning(
            "{}: a seeded sample of {} of its {} images is measured; --count {} measures all", path,
            image_set.count, images.size(), images.size());
    config.count = image_set.count;
    if (!captions.empty() && static_cast<std::int64_t>(captions.size()) < images.size()) {
        core::fail(
            "{}: has {} images, and there are {} captions; caption i belongs to image i by name",
            path, images.size(), captions.size());
    }
    const nlohmann::json description{{"name", name}, {"images", images.size()}};
    nlohmann::json result, rows = nlohmann::json::object();
    if (config.data.empty() && config.reference.empty()) {
        result = {{"kind", "image"},
                  {"metrics", nlohmann::json::object()},
                  {"classes", nlohmann::json::array()},
                  {"protocol",
                   {{"name", config.protocol.name},
                    {"count", config.count},
                    {"seeds", config.seeds},
                    {"model", description},
                    {"program", "atelier " ATELIER_VERSION}}}};
        result["protocol"]["model"]["hash"] = images.hash();
    } else {
        ReferenceEvaluator reference(config, images.spec());
        std::vector<NamedTarget> targets{
            {name,
             {[&](std::int64_t, std::uint64_t seed) { return image_set.draw(seed); }, images.hash(),
              description}}};
        if (!config.real.empty())
            targets.push_back(row_of_real_images(config, images.spec(), reference.evaluator()));
        if (auto shared = reference.share(config, targets)) return *shared;
        for (const auto& [row, target] : targets) {
            rows[row] = reference.evaluator().evaluate(target);
            rows[row]["protocol"].erase("classes");  // no classes were drawn here
        }
        add_ratios(rows, real_row);
        result = rows[name];
    }
    const auto answer = [&] {
        nlohmann::json order = nlohmann::json::array({name});
        rows[name] = std::move(result);
        if (rows.contains(real_row)) order.push_back(real_row);
        return nlohmann::json{{"order", order}, {"models", std::move(rows)}};
    };
    if (captions.empty()) return answer();
    const std::vector<std::int64_t> chosen = image_set.chosen(config.seeds.front());
    std::vector<std::string> chosen_captions;
    for (const std::int64_t i : chosen)
        chosen_captions.push_back(captions[static_cast<std::size_t>(i)]);
    add_clip_score(result, config, *data::subset(image_set.images, chosen), chosen_captions);
    return answer();
}

void check_shape(const data::Dataset& data, const data::SampleSpec& spec,
                 const std::string& where) {
    if (data.spec().kind == spec.kind && data.spec().shape == spec.shape) return;
    core::fail(
        "{}: holds samples of {}, and those to be measured are {}; name data like those that the "
        "model was trained on (images are brought to a size with: atelier import {} NEW.zip --size "
        "N)",
        where, core::to_string(data.spec().shape), core::to_string(spec.shape), where);
}

std::vector<std::unique_ptr<FeatureSpace>> open_spaces(const EvaluationConfig& config,
                                                       std::int64_t channels) {
    std::vector<std::unique_ptr<FeatureSpace>> opened;
    if (!config.inception.empty())
        opened.push_back(
            std::make_unique<Inception>(config.inception, config.device, config.protocol.resize));
    if (!config.dinov2.empty())
        opened.push_back(std::make_unique<Dinov2>(config.dinov2, config.device));
    if (!config.clip_features.empty())
        opened.push_back(std::make_unique<ClipFeatures>(config.clip_features, config.device));
    if (!opened.empty()) return opened;
    if (!config.classifier.empty())
        opened.push_back(std::make_unique<FeatureExtractor>(config.classifier, config.device));
    else opened.push_back(std::make_unique<Thumbnails>(channels));
    return opened;
}

std::shared_ptr<const data::Dataset> open_real(const EvaluationConfig& config) {
    return resized(
        data::open_dataset({.path = config.real, .split = "train", .limit = 0, .gaps = true}),
        config.protocol.side);
}

FeatureSpaces spaces_of(const std::vector<std::unique_ptr<FeatureSpace>>& opened) {
    FeatureSpaces spaces;
    for (const auto& space : opened) spaces.push_back(space.get());
    return spaces;
}

void add_ratios(nlohmann::json& models, const std::string& real) {
    const nlohmann::json of_real = models.value(real, nlohmann::json());
    for (auto& [name, result] : models.items()) {
        // Of an earlier evaluation, which may have had other real images.
        result.at("metrics").erase("fdr");
        result.erase("fdr");
        for (nlohmann::json& row : result["cells"]) row.erase("fdr");
        if (result["cells"].empty()) result.erase("cells");
        if (of_real.is_null() || name == real) continue;
        std::vector<std::string> names;
        for (const FeatureSpace::Kind kind : feature_space_kinds) {
            const std::string distance = frechet_name(kind);
            if (of_real.at("metrics").contains(distance) && result["metrics"].contains(distance))
                names.push_back(distance);
        }
        if (names.empty()) continue;
        result["metrics"]["fdr"] = mean_ratio(result["metrics"], of_real["metrics"], names);
        result["fdr"] = {{"distances", names}, {"real", real}};
        if (!result.contains("cells") ||
            result["partition"] != of_real.value("partition", nlohmann::json()))
            continue;
        for (std::size_t k = 0; k < result["cells"].size(); ++k)
            result["cells"][k]["fdr"] = mean_ratio(result["cells"][k], of_real["cells"][k], names);
    }
}

Protocol protocol_of(const EvaluationConfig& config, std::string reference) {
    Protocol protocol;
    protocol.count = config.count;
    protocol.seeds = config.seeds;
    protocol.reference_path = std::move(reference);
    protocol.program = "atelier " ATELIER_VERSION;
    protocol.name = config.protocol.name;
    protocol.class_draws = description_of(config.protocol.classes);
    protocol.side = config.protocol.side;
    protocol.partition = config.partition;
    if (config.reference.empty() && data::is_toy(config.data)) {
        const data::ToyDistribution truth = data::toy_distribution(config.data);
        protocol.centres = truth.centres;
        protocol.std_dev = truth.std_dev;
    }
    return protocol;
}

}  // namespace atelier::metrics
