#pragma once

#include <filesystem>

#include "atelier/distillation/stage.h"

namespace atelier::training {

struct LoopSettings {
    std::string label;                 // "teacher", "student 2 dm": shown to people
    std::filesystem::path folder;      // of the stage: checkpoints/, metrics.jsonl, samples/
    double checkpoint_seconds = 60;    // time between checkpoints; does not change results
    int checkpoints_kept = 2;
    std::int64_t log_every = 50;       // steps
    std::int64_t probe_every = 0;      // steps between measurements and sample grids; 0: only at the end
    bool keep_best = false;            // end with all learners' weights of the lowest probe distance instead of the last
    Tensor probe_noise;                // fixed noise of the probe samples
    std::int64_t probe_batch = 0;      // probe samples drawn at once; 0: all
    diffusion::Condition probe_condition;
    /// Distance of samples (drawn from the probe noise) to the data; lower is better. May be empty.
    std::function<double(const Tensor& samples)> distance;
    /// Draws a picture of samples into a file without its ending. May be empty.
    std::function<void(const std::filesystem::path& stem, const Tensor& samples)> draw;
};

struct LoopResult {
    ops::Parameters weights;      // of the stage's last learner: averaged where an average is kept, best or last
    ops::Parameters raw_weights;  // without the average, of the last step
    std::map<std::string, ops::Parameters> more_averages;  // of the last step, by their decays
    std::map<std::string, ops::Parameters> others;         // the other learners' by their names, without averages, of the same step as `weights`
    bool of_one_step = true;      // whether they are; not where the best weights came from a checkpoint of an older version, which kept no others
    std::int64_t best_step = 0;
    double best_distance = 0;     // NaN when nothing was measured
    bool took_best = false;       // weights are those of best_step
    double seconds = 0;           // spent in all sessions
};

/// Runs a stage from its newest checkpoint, or from the start, to its end. A run that is killed at any moment and called again ends with the
/// same bits. SIGINT and SIGTERM make a checkpoint and throw core::Interrupted. A loss that is not finite, or a collapse, throws
/// core::Error with what, where, and the last good checkpoint.
LoopResult run_stage(distillation::Stage& stage, const LoopSettings& settings);

/// Whether the loop would go on from a checkpoint that is there.
bool has_checkpoint(const LoopSettings& settings);

/// Writes the checkpoint of a stage of one learner after `steps` steps of which the weights alone are left: the learner's, as they are, their average, and the further
/// averages by their decays. The moments begin at zero.
void begin_from_weights(distillation::Stage& stage, const LoopSettings& settings, std::int64_t steps, const ops::Parameters& averaged,
                        const std::function<ops::Parameters(const std::string& decay)>& further);

}  // namespace atelier::training
