#include "atelier/inference/prompted_generator.h"

#include "atelier/core/error.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::inference {

namespace {

/// The distinct prompts, and for each sample the index of its prompt among them.
struct Distinct {
    explicit Distinct(const std::vector<std::string>& all) {
        std::map<std::string, std::int64_t> known;
        for (const std::string& prompt : all) {
            const auto [entry, inserted] =
                known.emplace(prompt, static_cast<std::int64_t>(prompts.size()));
            if (inserted) prompts.push_back(prompt);
            rows.push_back(entry->second);
        }
    }
    std::vector<std::string> prompts;
    std::vector<std::int64_t> rows;
};

}  // namespace

bool reads_prompts(const std::filesystem::path& directory) {
    return models::has_prompt_encoder(directory) && !models::is_diffusers_directory(directory);
}

PromptedGenerator::PromptedGenerator(const std::filesystem::path& directory,
                                     const std::optional<Sampling>& sampling,
                                     std::optional<double> guidance, const Engine& engine)
    : directory_(directory), loaded_(1), engine_(engine) {
    if (models::is_ensemble_directory(directory)) {
        if ((sampling && sampling->method != Sampling::Method::one_step) || guidance) {
            throw core::UsageError(directory.string() +
                                   ": an ensemble's students take one step, guided as their "
                                   "teacher was; --sampler and --guidance are for the teacher");
        }
        ensemble_ = models::read_ensemble(directory);
        spec_ = ensemble_->spec;
        loaded_.resize(ensemble_->students.size());
        prepare(models::read_model_config(ensemble_->students.front()),
                ensemble_->prompts->router());
        return;
    }
    const models::Model model = models::read_model_config(directory);
    spec_ = model.spec;
    sampling_ = sampling.value_or(default_sampling(model));
    guidance_ = guidance.value_or(model.guidance.value_or(1.0));
    prepare(model, std::nullopt);
}

void PromptedGenerator::prepare(const models::Model& model,
                                std::optional<conditions::Router> router) {
    engine_ = engine_for(engine_, model);
    reader_.emplace(directory_, model.network, std::move(router));
    if (spec_.kind == data::SampleSpec::Kind::latent)
        autoencoder_.emplace(directory_ / "vae", engine_);
}

Tensor PromptedGenerator::to_pixels(const Tensor& samples) {
    return autoencoder_ ? autoencoder_->decode_to_pixels(samples)
                        : data::to_user_space(spec_, samples).contiguous();
}

std::vector<std::int64_t> PromptedGenerator::image_shape() const {
    return autoencoder_ ? autoencoder_->network().image_shape(spec_.shape) : spec_.shape;
}

PromptedModel& PromptedGenerator::loaded(std::int64_t student) {
    auto& entry = loaded_.at(static_cast<std::size_t>(student));
    if (!entry) {
        entry = std::make_unique<PromptedModel>(
            ensemble_ ? models::read_student(*ensemble_, student, engine_.device, engine_.weights())
                      : models::read_model(directory_, engine_.device, engine_.weights()),
            sampling_, engine_, reader_->empty_prompt(), guidance_);
    }
    return *entry;
}

std::string PromptedGenerator::hash_of_student(std::int64_t student) {
    return loaded(student).hash();
}
std::vector<std::string> PromptedGenerator::hashes() {
    std::vector<std::string> all;
    for (std::int64_t k = 0; k < students(); ++k) all.push_back(hash_of_student(k));
    return all;
}

std::int64_t PromptedGenerator::parameters_of_student(std::int64_t student) {
    return loaded(student).model.parameter_count();
}

Tensor PromptedGenerator::draw(const PromptSampleRequest& request) {
    const Distinct distinct(request.prompts);
    const PromptReader::EncodedPrompts encoded = reader_->encode(distinct.prompts);
    std::vector<std::vector<std::int64_t>> of_student(static_cast<std::size_t>(students()));
    for (std::size_t i = 0; i < distinct.rows.size(); ++i) {
        of_student[static_cast<std::size_t>(route(encoded.embeddings[distinct.rows[i]]).student)]
            .push_back(static_cast<std::int64_t>(i));
    }
    std::vector<std::int64_t> shape{static_cast<std::int64_t>(request.prompts.size())};
    shape.insert(shape.end(), spec().shape.begin(), spec().shape.end());
    Tensor all = at::empty(shape, at::kFloat);
    for (std::size_t k = 0; k < of_student.size(); ++k) {
        if (of_student[k].empty()) continue;
        std::vector<Draw> draws;
        std::vector<std::int64_t> rows;
        for (const std::int64_t i : of_student[k]) {
            draws.push_back({request.seed, request.numbers[static_cast<std::size_t>(i)], 0});
            rows.push_back(distinct.rows[static_cast<std::size_t>(i)]);
        }
        const Tensor conditioning =
            encoded.conditioning.index_select(0, at::tensor(rows, at::kLong));
        all.index_copy_(0, at::tensor(of_student[k], at::kLong),
                        loaded(static_cast<std::int64_t>(k)).draw(draws, conditioning));
    }
    return all;
}

}  // namespace atelier::inference
