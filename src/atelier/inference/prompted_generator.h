#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "atelier/inference/autoencoder.h"
#include "atelier/inference/prompted_model.h"
#include "atelier/models/ensemble.h"

namespace atelier::inference {

/// Whether the model or the ensemble in a directory is conditioned on prompts.
bool reads_prompts(const std::filesystem::path& directory);

/// The samples to draw: for each its number under `seed` (the two determine its noise) and its
/// prompt.
struct PromptSampleRequest {
    std::uint64_t seed = 0;
    std::vector<std::int64_t> numbers;
    std::vector<std::string> prompts;
};

/// A teacher or an ensemble of students conditioned on prompts. A prompt is encoded once, for the
/// router and the student together. Each sample depends only on its seed, number, prompt and the
/// weights. Not thread-safe.
class PromptedGenerator {
public:
    /// Without `sampling`, students take one step, teachers 18 Heun steps; without `guidance`,
    /// teachers use the guidance with which their students were distilled. Throws core::UsageError
    /// when several steps or guidance are requested of an ensemble, whose students have the
    /// guidance built in.
    PromptedGenerator(const std::filesystem::path& directory,
                      const std::optional<Sampling>& sampling, std::optional<double> guidance,
                      const Engine& engine);

    /// Samples in model space, [n, shape...], in the order of the request.
    Tensor draw(const PromptSampleRequest& request);
    /// Converts samples to images, uint8 [n,H,W,C]: latents are decoded, others converted by
    /// models::to_user_space.
    Tensor to_pixels(const Tensor& samples);

    const data::SampleSpec& spec() const { return spec_; }
    const models::PromptEncoder& encoder() const { return reader_->encoder(); }
    std::int64_t students() const { return reader_->students(); }
    /// Routes an embedding [D] of the encoder to a student; for a teacher, student 0 without a
    /// runner-up.
    conditions::Router::Decision route(const Tensor& embedding) const {
        return reader_->route(embedding);
    }
    std::string hash_of_student(std::int64_t student);
    /// The hashes of all students.
    std::vector<std::string> hashes();
    std::int64_t parameters_of_student(std::int64_t student);
    /// Channels, height and width of an image.
    std::vector<std::int64_t> image_shape() const;
    /// The method of the prompt partition, and its hash; "whole" and empty for a model that owns
    /// all prompts.
    std::string partition_method() const {
        return ensemble_ ? ensemble_->prompts->method : "whole";
    }
    std::string partition_hash() const { return ensemble_ ? ensemble_->prompts->hash() : ""; }
    const Sampling& sampling() const { return sampling_; }
    const Engine& engine() const { return engine_; }
    double guidance() const { return guidance_; }

private:
    void prepare(const models::Model& model, std::optional<conditions::Router> router);
    PromptedModel& loaded(std::int64_t student);

    std::filesystem::path directory_;
    std::optional<PromptReader> reader_;
    data::SampleSpec spec_;
    std::optional<models::Ensemble> ensemble_;
    std::vector<std::unique_ptr<PromptedModel>> loaded_;
    Sampling sampling_;
    Engine engine_;
    double guidance_ = 1;
    std::optional<Autoencoder> autoencoder_;  // for latents
};

}  // namespace atelier::inference
