#pragma once

#include <filesystem>
#include <memory>

#include "atelier/cli/run_config.h"
#include "atelier/conditions/partition.h"
#include "atelier/data/dataset.h"
#include "atelier/diffusion/condition_table.h"
#include "atelier/inference/autoencoder.h"
#include "atelier/models/model_directory.h"
#include "atelier/training/loop.h"
#include "atelier/training/run_directory.h"

namespace atelier::cli {

/// A run being worked on: its config, its directory, and what several stages need of them.
class Workshop {
public:
    explicit Workshop(LoadedConfig loaded);

    const RunConfig& config() const { return loaded_.config; }
    LoadedConfig& loaded() { return loaded_; }
    const LoadedConfig& loaded() const { return loaded_; }
    const std::filesystem::path& output() const { return output_; }
    at::Device device() const { return device_; }
    std::uint64_t seed() const { return static_cast<std::uint64_t>(config().seed); }

    /// The training data as they lie on disk, opened when first asked for.
    const std::shared_ptr<const data::Dataset>& raw_data();
    /// The same as the teacher sees them: one of latents has its images encoded when this is asked for first.
    const std::shared_ptr<const data::Dataset>& data();

    /// All that the result of a stage (teacher, partition, pairs, tsm, dm, adm) depends on, as far as it is there.
    training::StageIdentity identity(const std::string& stage);
    /// A stage's folder under the output, tied to its identity.
    training::StageFolder stage(const std::string& stage, const std::string& folder) { return {output_ / folder, identity(stage)}; }

    /// The classifier whose features choose among a student's weights: probe.classifier, or what evaluate.classifier was when the run began. Empty: none.
    std::string probe_classifier() const;

    /// The finished teacher. Throws core::Error saying how to make one when there is none.
    const models::Model& teacher();
    /// ops::hash_of its weights.
    const std::string& teacher_hash();
    /// The teacher as something that is only looked at: in low precision with matrices of two bytes a number. The workshop lets go of its own; what
    /// teacher() gave before must not be used any more.
    models::Model frozen_teacher();

    /// What the data's labels stand for: classes, or captions as the run's teacher embeds them.
    const diffusion::ConditionTable& conditions();

    /// `teacher`, which must outlive the result, as the config wants it asked: guided, or not.
    std::unique_ptr<diffusion::Denoiser> asked(const models::Model& teacher);

    /// Settings that every training loop of the run shares: probes on `classes` drawn from the prior, whose labels stand for what `conditions` says,
    /// checkpoints, pictures, the distance to the data. `label` is shown to people.
    training::LoopSettings loop_settings(const std::string& label, const std::filesystem::path& folder, std::span<const std::int64_t> classes,
                                         const diffusion::ConditionTable& conditions);

private:
    LoadedConfig loaded_;
    std::filesystem::path output_;
    at::Device device_;
    std::shared_ptr<const data::Dataset> raw_data_, data_;
    std::unique_ptr<models::Model> teacher_;
    std::string teacher_hash_;
    std::optional<diffusion::ConditionTable> conditions_;
    std::shared_ptr<inference::Autoencoder> autoencoder_;  // of a teacher of latents, for pictures
};

/// One SHA-256 of the files that are there, in their order; empty where none is.
std::string hash_of_files(const std::vector<std::filesystem::path>& files);

/// Throws core::UsageError where samples of `form` in so many classes are not what the config says of its data.
void check_data(const models::DataForm& form, std::int64_t classes, const RunConfig& config);

/// Throws core::UsageError where a teacher is for other samples: a class-conditional one needs labels, an unconditional one can make nothing of them.
/// `label_width` counts the data's classes or, with `captions`, the values of a caption's embedding.
void check_teacher(const models::Model& teacher, const models::DataForm& form, std::int64_t label_width, bool captions,
                   const RunConfig& config);

/// Throws core::UsageError or core::Error where config and data do not fit together, before anything is trained or written.
void check_plan(Workshop& workshop);

/// config.json of a network of `config`'s sizes for samples of `form`, without noise levels.
nlohmann::json network_json(const NetworkConfig& config, const models::DataForm& form, std::int64_t classes);

/// Draws a picture of samples: a grid of images, or points coloured by class. `stem` gets the ending.
void draw_samples(const std::filesystem::path& stem, const models::DataForm& form, const Tensor& samples,
                  std::span<const std::int64_t> classes);

}  // namespace atelier::cli
