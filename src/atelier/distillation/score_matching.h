#pragma once

#include <optional>

#include "atelier/diffusion/condition_table.h"
#include "atelier/diffusion/noise_schedule.h"
#include "atelier/distillation/micro_batches.h"

namespace atelier::distillation {

/// Network and data of a stage; all references and pointers must outlive it.
struct ScoreMatchingInputs {
    const networks::Network& network;
    backends::Parameters& parameters;
    const diffusion::Denoiser* teacher;  // may be null
    BatchSource real;
    std::optional<diffusion::ConditionTable>
        conditions{};  // what labels stand for; unset: the network's classes
};

/// Trains a diffusion model by denoising: E[w(sigma) |D(x + sigma z; sigma, c) - target|^2] over
/// real samples. With no teacher the target is x (Karras et al. 2022); with one it is the teacher's
/// estimate, which is teacher score matching (MSD, section 4).
class ScoreMatching : public Stage {
public:
    ScoreMatching(ScoreMatchingInputs inputs, ScoreMatchingSettings settings, StageContext context);

    std::int64_t steps() const override { return settings_.steps; }
    std::vector<Learner> learners() override;
    std::int64_t micro_batches(std::size_t) const override {
        return micro_batch_count(settings_.batch, settings_.micro_batch);
    }
    Loss loss(std::size_t index, std::int64_t step, std::int64_t inner_step,
              std::int64_t micro_batch) override;
    Tensor sample(const backends::Parameters& weights, const Tensor& noise,
                  const diffusion::Condition& condition) const override;
    /// A warning if the loss is above that of an untrained network.
    std::vector<Finding> health(Metrics& metrics, const Tensor& probe) override;

private:
    /// An update's samples, their noise levels and the stream of their noise.
    struct Draws {
        LabelledBatch real;
        Tensor sigma;
        core::RandomStream noise;
    };
    Draws draw(std::int64_t step) const;
    /// The batch's labels, some of them replaced by -1 (no condition).
    std::vector<std::int64_t> with_dropout(const std::vector<std::int64_t>& labels,
                                           std::int64_t step) const;

    ScoreMatchingInputs inputs_;
    ScoreMatchingSettings settings_;
    StageContext context_;
    diffusion::ConditionTable conditions_;
    UpdateDraws<Draws> draws_;
};

/// w(sigma) |D(x + sigma z; sigma, c) - target|^2, mean over samples and elements; target x, or the
/// teacher's estimate if there is a teacher.
Tensor score_matching_loss(const diffusion::Denoiser& model, const diffusion::Denoiser* teacher,
                           const Tensor& x, const Tensor& sigma, const Tensor& z,
                           const diffusion::Condition& condition,
                           const diffusion::NoiseSchedule& noise);

}  // namespace atelier::distillation
