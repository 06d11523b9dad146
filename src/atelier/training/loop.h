#pragma once

#include <filesystem>

#include "atelier/core/error.h"
#include "atelier/distillation/stage.h"
#include "atelier/parallel/ranks.h"
#include "atelier/parallel/reduction.h"

namespace atelier::training {

/// A stage that needs more memory than its device has.
class OutOfMemory : public core::Error {
public:
    OutOfMemory(const std::string& message, std::string of_stage)
        : core::Error(message), stage(std::move(of_stage)) {}

    std::string stage;  // LoopSettings::stage
};

struct LoopSettings {
    std::string label;               // "teacher", "student 2 dm": for messages
    std::string stage;               // the table of its config, "dm": for messages
    std::filesystem::path folder;    // of the stage: checkpoints/, metrics.jsonl, samples/
    double checkpoint_seconds = 60;  // time between checkpoints; does not affect results
    int checkpoints_kept = 2;
    std::int64_t log_every = 50;  // steps
    std::int64_t probe_every =
        0;                   // steps between measurements and sample grids; 0: only at the end
    bool keep_best = false;  // return all learners' weights of the step with the lowest probe
                             // distance, not the last
    Tensor probe_noise;      // fixed noise of the probe samples, [N,...]
    std::int64_t probe_batch = 0;  // probe samples drawn per batch; 0: all
    diffusion::Condition probe_condition;
    /// Moments by learner ("student/first_moment/..."), as in LoopResult, with which the learners'
    /// optimisers begin where the tensors are the same. May be empty.
    std::function<backends::Parameters()> moments;
    /// The distance of samples drawn from the probe noise to the data; lower is better. May be
    /// empty.
    std::function<double(const Tensor& samples)> distance;
    /// Writes an image of samples to `stem` plus an extension. May be empty.
    std::function<void(const std::filesystem::path& stem, const Tensor& samples)> draw;
    parallel::Reduction reduction = parallel::Reduction::exact;
    /// Those that train the stage together: rank 0 probes and writes, all make the same updates.
    parallel::Ranks* ranks = &parallel::Ranks::alone();
    /// Each rank keeps the moments and averages of some tensors only; does not affect results.
    bool optimizer_sharding = false;
};

struct LoopResult {
    backends::Parameters
        weights;  // of the stage's last learner: averaged if an average is kept; best or last
    backends::Parameters raw_weights;                           // not averaged, of the last step
    std::map<std::string, backends::Parameters> more_averages;  // of the last step, by decay
    std::map<std::string, backends::Parameters> others;  // of the other learners, by name, not
                                                         // averaged, of the same step as `weights`
    bool others_match = true;  // whether `others` are of that step; false if the best weights came
                               // from a checkpoint of an older version, which has no others
    backends::Parameters moments;  // of all learners' optimisers after the last step
    std::int64_t best_step = 0;
    double best_distance = 0;  // NaN if nothing was measured
    bool used_best = false;    // whether `weights` are those of best_step
    double seconds = 0;        // over all sessions
};

/// Runs a stage from its newest checkpoint, or from the start, to its end. A run that is killed at
/// any time and resumed ends with bit-identical results, on any number of ranks if the reduction is
/// exact. SIGINT and SIGTERM, to any of the ranks, write a checkpoint and throw core::Interrupted
/// on all. A non-finite loss or a collapse throws core::Error naming the cause, the step and the
/// last good checkpoint; where the device's memory does not suffice, OutOfMemory. Best weights and
/// distances are rank 0's alone, and so are averages and moments that ranks share out.
LoopResult run_stage(distillation::Stage& stage, const LoopSettings& settings);

/// Whether there is a checkpoint that run_stage would resume from.
bool has_checkpoint(const LoopSettings& settings);

/// Writes a checkpoint after `steps` steps of a one-learner stage of which only the weights are
/// left: the learner's current parameters, their average, and the additional averages by decay.
/// Adam's moments start at zero.
void begin_from_weights(
    distillation::Stage& stage, const LoopSettings& settings, std::int64_t steps,
    const backends::Parameters& averaged,
    const std::function<backends::Parameters(const std::string& decay)>& more_averages);

}  // namespace atelier::training
