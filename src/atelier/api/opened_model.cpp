#include "atelier/api/opened_model.h"

#include <limits>

#include "atelier/backends/torch/deterministic.h"
#include "atelier/conditions/class_names.h"
#include "atelier/data/sample_spec.h"
#include "atelier/inference/generator.h"
#include "atelier/inference/prompted_generator.h"
#include "atelier/inference/text_to_image.h"
#include "atelier/metrics/caption_measuring.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/identify_path.h"

namespace atelier::api {

namespace {

constexpr std::int64_t prompts_per_batch = 256;

inference::Engine engine_of(const Options& options) {
    return inference::engine_of(options.engine, options.precision, options.device);
}

/// What sample `i` shows when `conditions` are repeated in order; nothing without conditions.
const Condition& condition_of(const std::vector<Condition>& conditions, std::int64_t i) {
    static const Condition none;
    return conditions.empty() ? none : conditions[static_cast<std::size_t>(i) % conditions.size()];
}

const std::string& prompt_of(const Condition& condition) {
    if (const auto* prompt = std::get_if<std::string>(&condition)) return *prompt;
    throw core::UsageError("this model reads prompts; every condition must be text");
}

metrics::EvaluationConfig evaluation_config(const std::string& data, std::int64_t count,
                                            std::uint64_t seed, const EvaluationOptions& options,
                                            at::Device device) {
    if (count < 2 || options.seeds < 1) {
        throw core::UsageError(
            fmt::format("count is {} and seeds {}; at least 2 samples and 1 seed are needed", count,
                        options.seeds));
    }
    metrics::EvaluationConfig config{.data = data,
                                     .split = options.split,
                                     .classifier = options.classifier,
                                     .inception = options.inception,
                                     .device = device,
                                     .count = count,
                                     .latency = false};
    config.seeds.clear();
    for (std::int64_t i = 0; i < options.seeds; ++i)
        config.seeds.push_back(seed + static_cast<std::uint64_t>(i));
    return config;
}

/// The means of a result's metrics; NaN for what could not be measured.
std::map<std::string, double> means_of(const nlohmann::json& results, const std::string& name) {
    std::map<std::string, double> means;
    for (const auto& [metric, summary] : results.at("models").at(name).at("metrics").items()) {
        const nlohmann::json& mean = summary.is_object() ? summary.at("mean") : summary;
        means[metric] =
            mean.is_number() ? mean.get<double>() : std::numeric_limits<double>::quiet_NaN();
    }
    return means;
}

/// `shape` is [C,H,W].
void set_image_size(Information& information, const std::vector<std::int64_t>& shape) {
    information.channels = shape.at(0);
    information.height = shape.at(1);
    information.width = shape.at(2);
}

template <class Generator>
void set_sampling(Information& information, const Generator& generator) {
    information.students = generator.students();
    information.engine = inference::name_of(generator.engine().kind);
    information.precision = inference::name_of(generator.engine().precision);
    information.sampler = inference::name_of(generator.sampling());
    information.evaluations = generator.sampling().evaluations();
}

class ClassModel : public OpenedModel {
public:
    ClassModel(const std::filesystem::path& path, const Options& options) : name_(path.string()) {
        if (options.guidance)
            throw core::UsageError(name_ +
                                   ": guidance is for models that read prompts; this one has "
                                   "classes");
        generator_ = inference::open_generator(
            path, inference::sampling_of(options.sampler, options.steps), engine_of(options));
        const data::SampleSpec& spec = generator_->spec();
        if (spec.kind == data::SampleSpec::Kind::points) {
            information_.samples = Information::Samples::points;
            information_.dimensions = spec.shape.at(0);
        } else {
            set_image_size(information_, spec.shape);
        }
        information_.classes = generator_->prior().classes();
        information_.class_names = spec.class_names;
        information_.conditions = information_.classes > 1 ? Information::Conditions::classes
                                                           : Information::Conditions::none;
        set_sampling(information_, *generator_);
    }

    Drawn draw(const std::vector<Condition>& conditions, std::int64_t count, std::uint64_t seed,
               std::int64_t first) override {
        const conditions::ClassSampler prior(generator_->prior());
        inference::SampleRequest request{seed, {}, {}};
        Drawn drawn;
        for (std::int64_t i = first; i < first + count; ++i) {
            const Condition& condition = condition_of(conditions, i);
            const std::int64_t label = std::holds_alternative<std::monostate>(condition)
                                           ? prior.at(seed, static_cast<std::uint64_t>(i))
                                           : class_of(condition);
            request.numbers.push_back(i);
            request.classes.push_back(label);
            drawn.conditions.emplace_back(label);
        }
        drawn.user =
            data::to_user_space(generator_->spec(), inference::draw_all(*generator_, request));
        return drawn;
    }

    std::int64_t route(const Condition& condition) override {
        return generator_->student_of(class_of(condition));
    }

    std::map<std::string, double> evaluate(const std::string& data, std::int64_t count,
                                           std::uint64_t seed,
                                           const EvaluationOptions& options) override {
        return means_of(metrics::measure(evaluation_config(data, count, seed, options,
                                                           generator_->engine().device),
                                         {{name_, generator_.get()}}),
                        name_);
    }

private:
    std::int64_t class_of(const Condition& condition) const {
        if (const auto* word = std::get_if<std::string>(&condition))
            return conditions::parse_class(*word, information_.class_names, information_.classes);
        if (const auto* id = std::get_if<std::int64_t>(&condition)) return *id;
        throw core::UsageError("a class is needed here: its name or its id");
    }

    std::string name_;
    std::unique_ptr<inference::Generator> generator_;
};

class PromptModel : public OpenedModel {
public:
    PromptModel(const std::filesystem::path& path, const Options& options)
        : name_(path.string()),
          generator_(path, inference::sampling_of(options.sampler, options.steps), options.guidance,
                     engine_of(options)) {
        information_.conditions = Information::Conditions::prompts;
        set_image_size(information_, generator_.image_shape());
        set_sampling(information_, generator_);
    }

    Drawn draw(const std::vector<Condition>& conditions, std::int64_t count, std::uint64_t seed,
               std::int64_t first) override {
        Drawn drawn;
        std::vector<Tensor> parts;
        for (std::int64_t i = first; i < first + count;) {
            inference::PromptSampleRequest batch{seed, {}, {}};
            for (; i < first + count &&
                   static_cast<std::int64_t>(batch.numbers.size()) < prompts_per_batch;
                 ++i) {
                batch.numbers.push_back(i);
                batch.prompts.push_back(prompt_of(condition_of(conditions, i)));
                drawn.conditions.emplace_back(batch.prompts.back());
            }
            parts.push_back(generator_.draw(batch));
        }
        drawn.user = generator_.to_pixels(at::cat(parts));
        return drawn;
    }

    std::int64_t route(const Condition& condition) override {
        const std::string& prompt = prompt_of(condition);
        return generator_.route(generator_.encoder().embed({&prompt, 1})[0]).student;
    }

    std::map<std::string, double> evaluate(const std::string& data, std::int64_t count,
                                           std::uint64_t seed,
                                           const EvaluationOptions& options) override {
        return means_of(metrics::measure_captions(evaluation_config(data, count, seed, options,
                                                                    generator_.engine().device),
                                                  {{name_, &generator_}}),
                        name_);
    }

private:
    std::string name_;
    inference::PromptedGenerator generator_;
};

class DiffusersModel : public OpenedModel {
public:
    DiffusersModel(const std::filesystem::path& path, const Options& options)
        : name_(path.string()), model_(path, engine_of(options)) {
        if (!options.sampler.empty())
            sampling_.method = inference::text_sampling_method(options.sampler);
        sampling_.steps = options.steps.value_or(sampling_.steps);
        sampling_.guidance = options.guidance.value_or(sampling_.guidance);
        information_.conditions = Information::Conditions::prompts;
        const std::int64_t side =
            model_.unet().sample_size * model_.autoencoder().network().factor();
        set_image_size(information_, {3, side, side});
        information_.engine = options.engine;
        information_.precision = options.precision;
        information_.sampler =
            sampling_.method == inference::TextSampling::Method::ddim ? "ddim" : "dpm++";
        information_.evaluations = sampling_.steps;
    }

    Drawn draw(const std::vector<Condition>& conditions, std::int64_t count, std::uint64_t seed,
               std::int64_t first) override {
        const backends::Deterministic deterministic;
        Drawn drawn;
        std::vector<Tensor> images;
        for (std::int64_t i = first; i < first + count; ++i) {
            const std::string& prompt = prompt_of(condition_of(conditions, i));
            images.push_back(inference::pixels_of(
                inference::draw(model_, prompt, sampling_, seed, i, [](std::int64_t) {})));
            drawn.conditions.emplace_back(prompt);
        }
        drawn.user = at::cat(images);
        return drawn;
    }

    std::int64_t route(const Condition& condition) override {
        prompt_of(condition);
        return 0;
    }

    std::map<std::string, double> evaluate(const std::string&, std::int64_t, std::uint64_t,
                                           const EvaluationOptions&) override {
        throw core::UsageError(name_ +
                               ": is a diffusers directory, which is measured on captions: "
                               "atelier evaluate " +
                               name_ + " --captions FILE");
    }

private:
    std::string name_;
    inference::StableDiffusion model_;
    inference::TextSampling sampling_;
};

}  // namespace

std::unique_ptr<OpenedModel> open_model(const std::filesystem::path& given,
                                        const Options& options) {
    const std::filesystem::path path = models::model_at(given);
    if (models::is_diffusers_directory(path))
        return std::make_unique<DiffusersModel>(path, options);
    if (inference::reads_prompts(path)) return std::make_unique<PromptModel>(path, options);
    return std::make_unique<ClassModel>(path, options);
}

}  // namespace atelier::api
