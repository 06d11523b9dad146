#include "atelier/api/opened_model.h"

#include <limits>

#include "atelier/conditions/class_names.h"
#include "atelier/data/sample_spec.h"
#include "atelier/inference/pipeline.h"
#include "atelier/metrics/measuring.h"
#include "atelier/models/identify_path.h"

namespace atelier::api {

namespace {

inference::Engine engine_of(const Options& options) {
    return inference::engine_of(options.engine, options.precision, options.device);
}

/// What sample `i` shows when `conditions` are repeated in order; nothing without conditions.
const Condition& condition_of(const std::vector<Condition>& conditions, std::int64_t i) {
    static const Condition none;
    return conditions.empty() ? none : conditions[static_cast<std::size_t>(i) % conditions.size()];
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

/// Any kind of model that inference::Pipeline opens.
class PipelineModel : public OpenedModel {
public:
    PipelineModel(const std::filesystem::path& path, const Options& options)
        : name_(path.string()) {
        pipeline_ = inference::Pipeline::load(path, {.engine = engine_of(options),
                                                     .sampler = options.sampler,
                                                     .steps = options.steps,
                                                     .guidance = options.guidance});
        const data::SampleSpec& spec = pipeline_->decoded_spec();
        if (spec.kind == data::SampleSpec::Kind::points) {
            information_.samples = Information::Samples::points;
            information_.dimensions = spec.shape.at(0);
        } else {
            set_image_size(information_, spec.shape);
        }
        if (pipeline_->reads_prompts()) {
            information_.conditions = Information::Conditions::prompts;
        } else {
            information_.classes = pipeline_->prior().classes();
            information_.class_names = spec.class_names;
            information_.conditions = information_.classes > 1 ? Information::Conditions::classes
                                                               : Information::Conditions::none;
        }
        information_.students = pipeline_->students();
        information_.engine = inference::name_of(pipeline_->engine().kind);
        information_.precision = inference::name_of(pipeline_->engine().precision);
        information_.sampler = inference::name_of(pipeline_->sampling());
        information_.evaluations = pipeline_->sampling().evaluations();
    }

    Drawn draw(const std::vector<Condition>& conditions, std::int64_t count, std::uint64_t seed,
               std::int64_t first) override {
        std::optional<conditions::ClassSampler> prior;
        if (!pipeline_->reads_prompts()) prior.emplace(pipeline_->prior());
        std::vector<inference::SampleRequest> requests;
        Drawn drawn;
        for (std::int64_t i = first; i < first + count; ++i) {
            const Condition& condition = condition_of(conditions, i);
            if (prior && std::holds_alternative<std::monostate>(condition)) {
                const std::int64_t label = prior->at(seed, static_cast<std::uint64_t>(i));
                requests.push_back({seed, i, inference::ClassId{label}});
                drawn.conditions.emplace_back(label);
            } else {
                requests.push_back({seed, i, internal(condition)});
                drawn.conditions.push_back(shown(requests.back().condition));
            }
        }
        drawn.user = pipeline_->sample(requests);
        return drawn;
    }

    std::int64_t route(const Condition& condition) override {
        return pipeline_->student_of(internal(condition));
    }

    std::map<std::string, double> evaluate(const std::string& data, std::int64_t count,
                                           std::uint64_t seed,
                                           const EvaluationOptions& options) override {
        return means_of(metrics::measure(evaluation_config(data, count, seed, options,
                                                           pipeline_->engine().device),
                                         {{name_, pipeline_.get()}}),
                        name_);
    }

private:
    /// A condition of the user as the pipeline wants it.
    inference::Condition internal(const Condition& condition) const {
        const auto* word = std::get_if<std::string>(&condition);
        if (pipeline_->reads_prompts()) {
            if (word == nullptr)
                throw core::UsageError("this model reads prompts; every condition must be text");
            return *word;
        }
        if (word != nullptr)
            return inference::ClassId{
                conditions::parse_class(*word, information_.class_names, information_.classes)};
        if (const auto* id = std::get_if<std::int64_t>(&condition)) return inference::ClassId{*id};
        throw core::UsageError("a class is needed here: its name or its id");
    }

    static Condition shown(const inference::Condition& condition) {
        if (const auto* prompt = std::get_if<std::string>(&condition)) return *prompt;
        return inference::class_of(condition);
    }

    std::string name_;
    std::unique_ptr<inference::Pipeline> pipeline_;
};

}  // namespace

std::unique_ptr<OpenedModel> open_model(const std::filesystem::path& given,
                                        const Options& options) {
    return std::make_unique<PipelineModel>(models::model_at(given), options);
}

}  // namespace atelier::api
