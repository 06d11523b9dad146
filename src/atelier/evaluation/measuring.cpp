#include "atelier/evaluation/measuring.h"

#include <algorithm>

#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/resize.h"
#include "atelier/core/signals.h"
#include "atelier/data/sampling.h"
#include "atelier/data/toy_points.h"
#include "atelier/evaluation/clip.h"
#include "atelier/evaluation/inception.h"
#include "atelier/evaluation/latency.h"
#include "atelier/evaluation/statistics_file.h"

namespace atelier::evaluation {

namespace {

constexpr std::int64_t clip_block = 500;

/// Images brought to squares as DMD2's evaluation does: the middle square, by Lanczos to `side`
/// pixels, rounded to 8 bits.
class SquareImages final : public data::Dataset {
public:
    SquareImages(std::shared_ptr<const data::Dataset> images, std::int64_t side)
        : images_(std::move(images)), side_(static_cast<int>(side)), form_(images_->form()) {
        form_.shape = {form_.shape[0], side, side};
        hash_ = core::sha256(fmt::format("square {} {}", side, images_->hash()));
    }

    std::int64_t size() const override { return images_->size(); }
    std::int64_t classes() const override { return images_->classes(); }
    const std::vector<std::int64_t>& labels() const override { return images_->labels(); }
    const std::vector<std::string>& captions() const override { return images_->captions(); }
    const models::DataForm& form() const override { return form_; }
    const std::string& hash() const override { return hash_; }

    Tensor samples(std::span<const std::int64_t> indices) const override {
        const Tensor whole = models::to_user_space(images_->form(), images_->samples(indices));
        const Tensor small = at::empty({whole.size(0), side_, side_, whole.size(3)}, at::kByte);
        for (std::int64_t i = 0; i < whole.size(0); ++i) {
            core::Image image =
                core::square(models::image_of(whole[i]), side_, core::ResizeFilter::lanczos);
            small[i].copy_(
                at::from_blob(image.pixels.data(), {side_, side_, whole.size(3)}, at::kByte));
        }
        return models::to_model_space(form_, small);
    }

private:
    std::shared_ptr<const data::Dataset> images_;
    int side_;
    models::DataForm form_;
    std::string hash_;
};

/// Samples are drawn as they are looked at, so that no more than a batch of them is in memory.
SampleSource source_of(inference::Generator& generator, ClassDraws draws) {
    return [&generator, draws](std::int64_t count, std::uint64_t seed) {
        const auto all = std::make_shared<const inference::Wanted>(
            drawn_classes(draws, count, seed, generator.prior()));
        return Samples{.model_space = {},
                       .labels = all->classes,
                       .count = count,
                       .read = [&generator, all](std::int64_t first, std::int64_t n) {
                           const auto part = [&](const std::vector<std::int64_t>& numbers) {
                               return std::vector(numbers.begin() + first,
                                                  numbers.begin() + first + n);
                           };
                           return inference::draw_in_parts(
                               generator, {all->seed, part(all->numbers), part(all->classes)});
                       }};
    };
}

nlohmann::json latency_of(inference::Generator& generator) {
    const inference::Wanted one = inference::plan(1, 0, {}, generator.prior());
    return to_json(median_seconds([&] { generator.draw(one); }));
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

/// The reference that a path names, in the size that the protocol looks at.
std::shared_ptr<const data::Dataset> sized(std::shared_ptr<const data::Dataset> images,
                                           std::int64_t side) {
    const models::DataForm& form = images->form();
    if (side == 0 || form.kind != models::DataForm::Kind::image ||
        (form.shape[1] == side && form.shape[2] == side))
        return images;
    return std::make_shared<SquareImages>(std::move(images), side);
}

/// What models are measured by: the reference, and the features of images.
class Yardstick {
public:
    Yardstick(const Measuring& measuring, const models::DataForm& form) {
        if (form.kind == models::DataForm::Kind::image)
            space_ = open_space(measuring, form.shape[0]);
        else if (!measuring.inception.empty() || !measuring.reference.empty()) core::fail("Inception's features and reference statistics are for images; this model draws points");
        if (measuring.reference.empty()) {
            const auto data = sized(
                data::open_dataset({.path = measuring.data, .split = measuring.split, .limit = 0}),
                measuring.protocol.side);
            check_shape(*data, form, measuring.data);
            evaluator_ = std::make_unique<Evaluator>(data, space_.get(),
                                                     protocol_of(measuring, measuring.data));
        } else {
            const Statistics statistics = read_statistics(measuring.reference, space_->width());
            evaluator_ = std::make_unique<Evaluator>(
                statistics, core::sha256_of_file(measuring.reference), form, *space_,
                protocol_of(measuring, measuring.reference));
        }
        if (measuring.save_reference.empty()) return;
        if (!evaluator_->reference_statistics()) core::fail("statistics of features are written of images; these are points");
        write_statistics(measuring.save_reference, *evaluator_->reference_statistics());
    }

    const Evaluator& evaluator() const { return *evaluator_; }

private:
    std::unique_ptr<FeatureSpace> space_;
    std::unique_ptr<Evaluator> evaluator_;
};

/// How well each of the images fits its caption: the mean of 100 cos(image, caption), no less than
/// 0 each (Hessel et al. 2021, as torchmetrics scales it).
double clip_score(const Clip& clip, const data::Dataset& images, std::span<const std::string> captions) {
    const auto count = static_cast<std::int64_t>(captions.size());
    const std::int64_t together = data::samples_together(images.form().shape, clip_block);
    core::Progress progress("CLIP score", count, "images");
    double sum = 0;
    for (std::int64_t first = 0; first < count; first += together) {
        if (core::stop_requested()) throw core::Interrupted("interrupted while measuring; nothing was written");
        const std::int64_t n = std::min(together, count - first);
        const Tensor seen = clip.images(
            models::to_user_space(images.form(), images.samples(data::consecutive(first, n))));
        const Tensor read = clip.texts(captions.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)));
        sum += (100 * (seen * read).sum(1)).clamp_min(0).sum(at::kDouble).item<double>();
        progress.update(first + n);
    }
    return sum / static_cast<double>(count);
}

void add_clip_score(nlohmann::json& result, const Measuring& measuring, const data::Dataset& images, std::span<const std::string> captions) {
    const Clip clip(measuring.clip, measuring.device);
    std::vector<std::string> read;
    for (const std::string& caption : captions)
        read.push_back(measuring.protocol.caption_prefix + caption);
    const distillation::Metrics draw{{"clip_score", clip_score(clip, images, read)}};
    result["metrics"].update(summaries({&draw}));
    result["protocol"]["clip"] = clip.hash();
    result["protocol"]["captions"] = core::sha256_of_lines(captions);
    if (!measuring.protocol.caption_prefix.empty())
        result["protocol"]["caption_prefix"] = measuring.protocol.caption_prefix;
}

/// Images that somebody brought, and which of them are measured.
struct Brought {
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

nlohmann::json measure(const Measuring& measuring, const std::vector<std::pair<std::string, inference::Generator*>>& models) {
    const Yardstick yardstick(measuring, models.front().second->form());
    const Evaluator& evaluator = yardstick.evaluator();
    nlohmann::json results = nlohmann::json::object();
    nlohmann::json order = nlohmann::json::array();
    for (const auto& [name, generator] : models) {
        const inference::Sampling& sampling = generator->sampling();
        const Subject subject{source_of(*generator, measuring.protocol.classes),
                              inference::hash_of(*generator),
                              {{"name", name},
                               {"sampler", inference::name_of(sampling)},
                               {"evaluations", sampling.evaluations()},
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

nlohmann::json measure_images(Measuring measuring, const std::string& path,
                              std::span<const std::string> captions, std::string name) {
    if (name.empty()) name = path;
    const Brought brought = [&] {
        const auto images = sized(data::open_dataset({.path = path, .split = "train", .limit = 0}),
                                  measuring.protocol.side);
        return Brought{images, std::min(measuring.count, images->size())};
    }();
    const data::Dataset& images = *brought.images;
    if (images.form().kind != models::DataForm::Kind::image)
        core::fail("{}: holds points; only images are measured without a model", path);
    if (measuring.count > images.size())
        core::log::info("{}: has {} images, all of them are measured", path, images.size());
    if (brought.all()) measuring.seeds.resize(1);
    else
        core::log::warning(
            "{}: a seeded sample of {} of its {} images is measured; --count {} measures all", path,
            brought.count, images.size(), images.size());
    measuring.count = brought.count;
    if (!captions.empty() && static_cast<std::int64_t>(captions.size()) < images.size()) {
        core::fail(
            "{}: has {} images, and there are {} captions; caption i belongs to image i by name",
            path, images.size(), captions.size());
    }
    const nlohmann::json description{{"name", name}, {"images", images.size()}};
    nlohmann::json result;
    if (measuring.data.empty() && measuring.reference.empty()) {
        result = {{"kind", "image"},
                  {"metrics", nlohmann::json::object()},
                  {"classes", nlohmann::json::array()},
                  {"protocol",
                   {{"name", measuring.protocol.name},
                    {"count", measuring.count},
                    {"seeds", measuring.seeds},
                    {"model", description},
                    {"program", "atelier " ATELIER_VERSION}}}};
        result["protocol"]["model"]["hash"] = images.hash();
    } else {
        const Yardstick yardstick(measuring, images.form());
        result = yardstick.evaluator().evaluate(
            {[&](std::int64_t, std::uint64_t seed) { return brought.draw(seed); }, images.hash(),
             description});
        result["protocol"].erase("classes");  // nobody drew them here
    }
    if (captions.empty()) return {{"order", {name}}, {"models", {{name, std::move(result)}}}};
    const std::vector<std::int64_t> chosen = brought.chosen(measuring.seeds.front());
    std::vector<std::string> theirs;
    for (const std::int64_t i : chosen) theirs.push_back(captions[static_cast<std::size_t>(i)]);
    add_clip_score(result, measuring, *data::subset(brought.images, chosen), theirs);
    return {{"order", {name}}, {"models", {{name, std::move(result)}}}};
}

void check_shape(const data::Dataset& data, const models::DataForm& form,
                 const std::string& where) {
    if (data.form().kind == form.kind && data.form().shape == form.shape) return;
    core::fail(
        "{}: holds samples of {}, and those to be measured are {}; name data like those that the "
        "model was trained on (images are brought to a size with: atelier import {} NEW.zip --size "
        "N)",
        where, core::to_string(data.form().shape), core::to_string(form.shape), where);
}

std::unique_ptr<FeatureSpace> open_space(const Measuring& measuring, std::int64_t channels) {
    if (!measuring.inception.empty())
        return std::make_unique<Inception>(measuring.inception, measuring.device,
                                           measuring.protocol.resize);
    if (!measuring.classifier.empty())
        return std::make_unique<FeatureExtractor>(measuring.classifier, measuring.device);
    return std::make_unique<Thumbnails>(channels);
}

Protocol protocol_of(const Measuring& measuring, std::string reference) {
    Protocol protocol;
    protocol.count = measuring.count;
    protocol.seeds = measuring.seeds;
    protocol.reference_path = std::move(reference);
    protocol.program = "atelier " ATELIER_VERSION;
    protocol.name = measuring.protocol.name;
    protocol.class_draws = words_of(measuring.protocol.classes);
    protocol.side = measuring.protocol.side;
    if (measuring.reference.empty() && data::is_toy(measuring.data)) {
        const data::ToyTruth truth = data::toy_truth(measuring.data);
        protocol.centres = truth.centres;
        protocol.deviation = truth.deviation;
    }
    return protocol;
}

}  // namespace atelier::evaluation
