#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "atelier/conditions/router.h"
#include "atelier/inference/autoencoder.h"
#include "atelier/inference/ready_model.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/prompt_encoder.h"

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
    ~PromptedGenerator();

    /// Samples in model space, [n, shape...], in the order asked for.
    Tensor draw(const Prompted& wanted);
    /// Samples as people see them, uint8 [n,H,W,C]: latents decoded, others as models::to_user_space has them.
    Tensor pictures(const Tensor& samples);

    const models::DataForm& form() const { return form_; }
    const models::PromptEncoder& encoder() const { return encoder_; }
    std::int64_t students() const { return router_ ? router_->students() : 1; }
    /// Where an embedding, as the encoder gives it, lies among the students' cells; student 0 without a runner-up for a teacher.
    conditions::Router::Place place(const Tensor& embedding) const;
    std::string hash_of_student(std::int64_t student);
    /// Of all students.
    std::vector<std::string> hashes();
    std::int64_t parameters_of_student(std::int64_t student);
    const Sampling& sampling() const { return sampling_; }
    const Engine& engine() const { return engine_; }
    double guidance() const { return guidance_; }

private:
    struct Loaded;
    void prepare(const models::Model& model);
    Loaded& loaded(std::int64_t student);
    Tensor one_batch(Loaded& by, const Tensor& noise, const Tensor& labels) const;
    /// Of what a network is told of a prompt: its embedding, or states of its tokens.
    const Tensor& labels_of(const diffusion::TextReading& reading) const { return reads_states_ ? reading.states : reading.embeddings; }

    std::filesystem::path directory_;
    models::PromptEncoder encoder_;
    models::DataForm form_;
    std::optional<models::Ensemble> ensemble_;
    std::optional<conditions::Router> router_;
    std::vector<std::unique_ptr<Loaded>> loaded_;
    Sampling sampling_;
    Engine engine_;
    double guidance_ = 1;
    bool reads_states_ = false;
    std::optional<Autoencoder> autoencoder_;  // of latents
    Tensor none_;                             // labels [1,...] of the empty prompt
};

}  // namespace atelier::inference
