#pragma once

#include <filesystem>
#include <memory>

#include "atelier/conditions/partition.h"
#include "atelier/core/shard.h"
#include "atelier/data/dataset.h"
#include "atelier/diffusion/condition_table.h"
#include "atelier/inference/autoencoder.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/model_directory.h"
#include "atelier/pipeline/run_config.h"
#include "atelier/training/loop.h"
#include "atelier/training/run_directory.h"

namespace atelier::pipeline {

/// The owners of classes or captions, by index; for captions also the partition that routes unseen
/// prompts.
struct Split {
    conditions::Partition owners;
    std::optional<conditions::PromptPartition> prompts;

    models::Assignment student_assignment(std::int64_t student) const {
        return prompts ? models::student_assignment(*prompts, student)
                       : models::student_assignment(owners, student);
    }
};

/// A run in progress: its config, its directory, and what several stages need.
class RunContext {
public:
    /// `ranks` must outlive this.
    explicit RunContext(LoadedConfig loaded, parallel::Ranks& ranks = parallel::Ranks::alone());

    const RunConfig& config() const { return loaded_.config; }
    LoadedConfig& loaded() { return loaded_; }
    const LoadedConfig& loaded() const { return loaded_; }
    const std::filesystem::path& output() const { return output_; }
    at::Device device() const { return device_; }
    /// Those that make the run together. Rank 0 writes; stages that do not train are its alone.
    parallel::Ranks& ranks() const { return ranks_; }
    std::uint64_t seed() const { return static_cast<std::uint64_t>(config().seed); }
    /// Which part of pairs, evaluation and encoding this process makes; all of it unless set.
    const core::Shard& shard() const { return shard_; }
    void set_shard(const core::Shard& shard) { shard_ = shard; }

    /// The training data as stored on disk, opened on first use.
    const std::shared_ptr<const data::Dataset>& raw_data();
    /// The training data as the teacher sees them. For a teacher of latents, images are encoded on
    /// first use.
    const std::shared_ptr<const data::Dataset>& data();

    /// Everything that the result of a stage that keeps a folder depends on, as far as it exists.
    training::StageIdentity identity(StageKind stage,
                                     std::optional<std::int64_t> student = std::nullopt);
    /// Where a stage's result is.
    std::filesystem::path path_of(StageKind stage,
                                  std::optional<std::int64_t> student = std::nullopt) const {
        return output_ / stage_path(stage, student);
    }
    /// The last stage of the trunk, from which students branch. The config must have one.
    std::filesystem::path trunk_folder() const;
    /// A stage's folder under the output, tied to its identity.
    training::StageFolder stage(StageKind stage,
                                std::optional<std::int64_t> student = std::nullopt) {
        return {path_of(stage, student), identity(stage, student)};
    }
    /// Whether rank 0 sees a stage finished. An operation of all ranks.
    bool is_finished(const training::StageFolder& stage) const;

    /// The run's partition, made or read on first use.
    const Split& split();

    /// Each student's budget, as RunConfig::of_student reads it; none where they are equal.
    const std::vector<double>& shares();

    /// The classifier whose features choose among a student's weights: probe.classifier, or the
    /// value of evaluate.classifier when the run began. Empty: none.
    std::string probe_classifier() const;

    /// The finished teacher. Throws core::Error, saying how to make one, when there is none.
    const models::Model& teacher();
    /// backends::hash_of its weights.
    const std::string& teacher_hash();
    /// The teacher for inference only: in low precision, its matrices take two bytes per element.
    /// Releases the context's own copy, so references that teacher() returned become invalid.
    models::Model frozen_teacher();

    /// The conditions of the data's labels: classes, or captions as the run's teacher embeds them.
    const diffusion::ConditionTable& conditions();

    /// `teacher`, which must outlive the result, with guidance applied according to the config.
    std::unique_ptr<diffusion::Denoiser> guided_teacher(const models::Model& teacher);

    /// Where and with which noise a stage trains a model; `stream` names its random numbers.
    distillation::StageContext stage_context(const models::Model& model, std::string stream) const;

    /// The settings that all training loops of the run share: probes on `classes` drawn from the
    /// prior, with labels looked up in `conditions`; checkpoints; sample images; the distance to
    /// the data. `label` is shown to people.
    training::LoopSettings loop_settings(const std::string& label,
                                         const std::filesystem::path& folder,
                                         std::span<const std::int64_t> classes,
                                         const diffusion::ConditionTable& conditions);

private:
    LoadedConfig loaded_;
    parallel::Ranks& ranks_;
    std::filesystem::path output_;
    core::Shard shard_;
    at::Device device_;
    std::shared_ptr<const data::Dataset> raw_data_, data_;
    std::unique_ptr<models::Model> teacher_;
    std::string teacher_hash_;
    std::optional<Split> split_;
    std::optional<std::vector<double>> shares_;
    std::optional<diffusion::ConditionTable> conditions_;
    std::shared_ptr<inference::Autoencoder> autoencoder_;  // decodes a latent teacher's samples
};

/// One SHA-256 of those of the files that exist, in order; empty where none does.
std::string hash_of_files(const std::vector<std::filesystem::path>& files);

/// Throws core::UsageError where `spec` and `classes` differ from data.shape and data.classes.
void check_data(const data::SampleSpec& spec, std::int64_t classes, const RunConfig& config);

/// Throws core::UsageError where a teacher is for other samples: a class-conditional one needs
/// labels, an unconditional one accepts none. `label_width` is the number of classes or, with
/// `captions`, the width of a caption's embedding.
void check_teacher(const models::ModelCard& teacher, const data::SampleSpec& spec,
                   std::int64_t label_width, bool captions, const RunConfig& config);

/// Throws core::UsageError or core::Error where config and data do not fit together, before
/// anything is trained or written.
void check_run(RunContext& context);

/// The config.json of the teacher that a run trains on samples of `spec`: its network's sizes and
/// its noise schedule. What is trained is read from it.
nlohmann::json teacher_json(const RunConfig& config, const data::SampleSpec& spec,
                            std::int64_t label_width);

/// A model's noise schedule for training by denoising, with the run's P_mean and P_std.
diffusion::NoiseSchedule training_noise(const models::Model& model, const RunConfig& config);

/// Writes `stem`.png: a grid of images, or points coloured by class.
void draw_samples(const std::filesystem::path& stem, const data::SampleSpec& spec,
                  const Tensor& samples, std::span<const std::int64_t> classes);

}  // namespace atelier::pipeline
