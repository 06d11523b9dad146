#include "atelier/inference/prompted_generator.h"

#include "atelier/core/error.h"
#include "atelier/diffusion/guidance.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::inference {

/// A model that was read, and as a denoiser, guided where it shall be.
struct PromptedGenerator::Loaded {
    Loaded(models::Model read, const Engine& engine, const Tensor& none, double guidance) : model(std::move(read)), denoiser(open_denoiser(model, engine)) {
        if (guidance != 1) denoiser = std::make_shared<diffusion::GuidedDenoiser>(denoiser, none, guidance);
    }

    const models::Model model;
    std::shared_ptr<const diffusion::Denoiser> denoiser;
};

namespace {

/// Prompts, each once, and which of them every sample shows.
struct Distinct {
    explicit Distinct(const std::vector<std::string>& all) {
        std::map<std::string, std::int64_t> known;
        for (const std::string& prompt : all) {
            const auto [place, fresh] = known.emplace(prompt, static_cast<std::int64_t>(prompts.size()));
            if (fresh) prompts.push_back(prompt);
            rows.push_back(place->second);
        }
    }
    std::vector<std::string> prompts;
    std::vector<std::int64_t> rows;
};

}  // namespace

bool reads_prompts(const std::filesystem::path& directory) { return models::has_prompt_encoder(directory) && !models::is_diffusers_directory(directory); }

PromptedGenerator::PromptedGenerator(const std::filesystem::path& directory, const std::optional<Sampling>& sampling, std::optional<double> guidance, const Engine& engine)
    : directory_(directory), encoder_(models::read_prompt_encoder(directory)), loaded_(1), engine_(engine) {
    if (models::is_ensemble_directory(directory)) {
        if ((sampling && sampling->method != Sampling::Method::one_step) || guidance) {
            throw core::UsageError(directory.string() + ": an ensemble's students take one step, guided as their teacher was; --sampler and --guidance are for the teacher");
        }
        ensemble_ = models::read_ensemble(directory);
        form_ = ensemble_->form;
        router_ = ensemble_->prompts->router();
        loaded_.resize(ensemble_->students.size());
        prepare(models::read_model_config(ensemble_->students.front()));
        return;
    }
    const models::Model model = models::read_model_config(directory);
    form_ = model.form;
    sampling_ = sampling.value_or(usual_sampling(model));
    guidance_ = guidance.value_or(model.config.value("guidance", 1.0));
    prepare(model);
}

void PromptedGenerator::prepare(const models::Model& model) {
    engine_ = engine_for(engine_, model);
    reads_states_ = model.network.tokens > 0;
    const std::string empty;
    none_ = labels_of(encoder_.read({&empty, 1}));
    if (form_.kind == models::DataForm::Kind::latent) autoencoder_.emplace(directory_ / "vae", engine_);
}

Tensor PromptedGenerator::pictures(const Tensor& samples) {
    return autoencoder_ ? autoencoder_->pictures(samples) : models::to_user_space(form_, samples).contiguous();
}

PromptedGenerator::~PromptedGenerator() = default;

PromptedGenerator::Loaded& PromptedGenerator::loaded(std::int64_t student) {
    auto& place = loaded_.at(static_cast<std::size_t>(student));
    if (!place) {
        place = std::make_unique<Loaded>(ensemble_ ? models::read_student(*ensemble_, student, engine_.device, engine_.weights())
                                                   : models::read_model(directory_, engine_.device, engine_.weights()), engine_, none_, guidance_);
    }
    return *place;
}

conditions::Router::Place PromptedGenerator::place(const Tensor& embedding) const {
    if (!router_) return {};
    const Tensor numbers = embedding.contiguous();
    return router_->place(std::span<const float>(numbers.const_data_ptr<float>(), static_cast<std::size_t>(numbers.numel())));
}

std::string PromptedGenerator::hash_of_student(std::int64_t student) { return ops::hash_of(loaded(student).model.parameters); }
std::vector<std::string> PromptedGenerator::hashes() {
    std::vector<std::string> all;
    for (std::int64_t k = 0; k < students(); ++k) all.push_back(hash_of_student(k));
    return all;
}

std::int64_t PromptedGenerator::parameters_of_student(std::int64_t student) { return loaded(student).model.parameter_count(); }

Tensor PromptedGenerator::draw(const Prompted& wanted) {
    const Distinct distinct(wanted.prompts);
    const diffusion::TextReading reading = encoder_.read(distinct.prompts);
    std::vector<std::vector<std::int64_t>> of_student(static_cast<std::size_t>(students()));
    for (std::size_t i = 0; i < distinct.rows.size(); ++i) {
        of_student[static_cast<std::size_t>(place(reading.embeddings[distinct.rows[i]]).student)].push_back(static_cast<std::int64_t>(i));
    }
    std::vector<std::int64_t> shape{static_cast<std::int64_t>(wanted.prompts.size())};
    shape.insert(shape.end(), form().shape.begin(), form().shape.end());
    Tensor all = at::empty(shape, at::kFloat);
    for (std::size_t k = 0; k < of_student.size(); ++k) {
        const auto& mine = of_student[k];
        for (std::size_t first = 0; first < mine.size(); first += static_cast<std::size_t>(largest_batch)) {
            const std::vector<std::int64_t> part(mine.begin() + static_cast<std::ptrdiff_t>(first),
                                                 mine.begin() + static_cast<std::ptrdiff_t>(std::min(first + static_cast<std::size_t>(largest_batch), mine.size())));
            std::vector<Tensor> noise;
            std::vector<std::int64_t> rows;
            for (const std::int64_t i : part) {
                noise.push_back(diffusion::image_noise(wanted.seed, wanted.numbers[static_cast<std::size_t>(i)], 1, form().shape));
                rows.push_back(distinct.rows[static_cast<std::size_t>(i)]);
            }
            const Tensor labels = labels_of(reading).index_select(0, at::tensor(rows, at::kLong));
            all.index_copy_(0, at::tensor(part, at::kLong), one_batch(loaded(static_cast<std::int64_t>(k)), at::cat(noise), labels));
        }
    }
    return all;
}

Tensor PromptedGenerator::one_batch(Loaded& by, const Tensor& noise, const Tensor& labels) const {
    at::NoGradGuard no_gradients;
    return drawn_by(*by.denoiser, sampling_, by.model.range, noise.to(engine_.device), {labels.to(engine_.device)}).to(at::kCPU);
}

}  // namespace atelier::inference
