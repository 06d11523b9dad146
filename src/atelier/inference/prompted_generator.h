#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "atelier/inference/autoencoder.h"
#include "atelier/inference/prompted_model.h"
#include "atelier/models/ensemble.h"

namespace atelier::inference {

/// Whether the model or the ensemble in a directory reads prompts.
bool reads_prompts(const std::filesystem::path& directory);

/// What is to be drawn: for each sample its number under `seed` (its noise follows from both) and its prompt.
struct Prompted {
    std::uint64_t seed = 0;
    std::vector<std::int64_t> numbers;
    std::vector<std::string> prompts;
};

/// A teacher or an ensemble of students conditioned on prompts. A prompt is read once: the router and the student see the same numbers. Each
/// sample depends on its seed, number, prompt and weights alone. One thread at a time.
class PromptedGenerator {
public:
    /// Without `sampling`, students take one step, teachers 18 Heun steps; without `guidance`, teachers are guided as they were for their students. Throws
    /// core::UsageError when students are asked for many steps or for guidance, which theirs already has.
    PromptedGenerator(const std::filesystem::path& directory, const std::optional<Sampling>& sampling, std::optional<double> guidance, const Engine& engine);

    /// Samples in model space, [n, shape...], in the order asked for.
    Tensor draw(const Prompted& wanted);
    /// Samples as people see them, uint8 [n,H,W,C]: latents decoded, others as models::to_user_space has them.
    Tensor pictures(const Tensor& samples);

    const models::DataForm& form() const { return form_; }
    const models::PromptEncoder& encoder() const { return reader_->encoder(); }
    std::int64_t students() const { return reader_->students(); }
    /// Where an embedding, as the encoder gives it, lies among the students' cells; student 0 without a runner-up for a teacher.
    conditions::Router::Place place(const Tensor& embedding) const { return reader_->place(embedding); }
    std::string hash_of_student(std::int64_t student);
    /// Of all students.
    std::vector<std::string> hashes();
    std::int64_t parameters_of_student(std::int64_t student);
    /// Of a picture: channels, height, width.
    std::vector<std::int64_t> picture_shape() const;
    /// How the partition of prompts was made, and its hash; "whole" and nothing of a model that owns all prompts.
    std::string partition_method() const { return ensemble_ ? ensemble_->prompts->method : "whole"; }
    std::string partition_hash() const { return ensemble_ ? ensemble_->prompts->hash() : ""; }
    const Sampling& sampling() const { return sampling_; }
    const Engine& engine() const { return engine_; }
    double guidance() const { return guidance_; }

private:
    void prepare(const models::Model& model, std::optional<conditions::Router> router);
    PromptedModel& loaded(std::int64_t student);

    std::filesystem::path directory_;
    std::optional<PromptReader> reader_;
    models::DataForm form_;
    std::optional<models::Ensemble> ensemble_;
    std::vector<std::unique_ptr<PromptedModel>> loaded_;
    Sampling sampling_;
    Engine engine_;
    double guidance_ = 1;
    std::optional<Autoencoder> autoencoder_;  // of latents
};

}  // namespace atelier::inference
