#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/core/schema.h"
#include "atelier/diffusion/noise_schedule.h"

/// The settings of training stages, as a config's keys set them. Each is bound to its keys by the
/// `bind_settings` beside it, and used as it is.
namespace atelier::distillation {

/// Optimiser settings of a learner: AdamW with a linear warm-up and a linear decay at the end of
/// the stage.
struct Optimization {
    double lr = 1e-4;
    double beta1 = 0.9, beta2 = 0.999;
    double weight_decay = 0.01;
    double clip = 10.0;       // maximal global gradient norm; 0: no clipping
    std::int64_t warmup = 0;  // updates until the full learning rate
    double decay_from =
        1.0;  // fraction of the stage after which the rate falls linearly to final_share * lr
    double final_share = 0.0;
    double ema_decay = 0.0;                 // of the averaged weights; 0: no average
    std::vector<double> more_ema_decays{};  // of additional averages
    std::int64_t warm_from = 0;  // first update of the warm-up, where a finished stage is
                                 // extended; no key
    double loss_scale = 0.0;     // float16: initial factor on the loss, so that small gradients do
                                 // not underflow; 0: no scaling; no key
};

/// Keys `prefix` + "lr" and so on; `prefix` is "teacher." or "dm.fake_". With `averages` also
/// "more_ema_decays".
void bind_settings(core::Schema& schema, const std::string& prefix, Optimization& to,
                   bool averages);

/// Training by denoising: a teacher, or TSM.
struct ScoreMatchingSettings {
    std::int64_t steps = 1000, batch = 64;
    std::int64_t micro_batch = 0;  // samples per micro-batch; 0: the whole batch
    Optimization optimization;
    double condition_dropout = 0;     // fraction of samples trained without their condition, for
                                      // classifier-free guidance; bound with the teacher's keys
    std::int64_t sampler_steps = 18;  // Heun steps of the sample grids; no key
};

/// Keys `table`.steps and so on; `steps` says what the steps are.
void bind_settings(core::Schema& schema, const std::string& table, ScoreMatchingSettings& to,
                   std::string steps);

struct AdversarialSettings {
    std::optional<double>
        gan_weight;  // of the generator's GAN loss; unset: balanced against the DM gradient
    double gan_balance = 1.0;  // when balanced: norm of the weighted GAN gradient over that of
                               // the DM gradient, both on the samples
    double discriminator_weight = 0.01;
    std::int64_t highest_level = 999;  // of the 1000 matching levels; above it, real and generated
                                       // samples are hardly distinguishable
    double r1_weight = 0.0;
    std::string divergence = "reverse_kl";
};

/// The loss by which a student learns.
enum class MatchingLoss { distribution_matching, score_identity };

/// The loss on teacher pairs.
enum class PairLoss {
    none,
    pseudo_huber,
    perceptual,
    lpips,
};

/// All, by their names in a config.
const std::vector<std::pair<std::string, PairLoss>>& pair_losses();

/// DM, or with `adversarial` ADM.
struct MatchingSettings {
    std::int64_t steps = 1000, batch = 64, fake_updates = 5;
    std::int64_t micro_batch = 0;     // samples per micro-batch; 0: the whole batch
    std::int64_t student_steps = 1;   // evaluations in which the student samples
    std::int64_t critic_warmup = -1;  // updates of the fake score before the first of the student;
                                      // -1: left to the pipeline, which knows what weights the
                                      // stage starts from; none where it is still -1
    Optimization student, fake;
    MatchingLoss loss = MatchingLoss::distribution_matching;
    double sid_alpha = 1.0;
    PairLoss regression = PairLoss::none;
    double regression_weight = 0.25;
    bool keep_best = true;  // end with the weights of the lowest probe distance
    std::optional<AdversarialSettings> adversarial;

    /// Whether teacher pairs are read, or read for this loss: what needs pairs asks this, never the
    /// loss alone, which a weight of 0 disables.
    bool uses_pairs() const { return regression != PairLoss::none && regression_weight > 0; }
    bool uses_pairs(PairLoss of) const { return uses_pairs() && regression == of; }
};

/// Keys `table`.steps and so on; those of the GAN head where `to` has one.
void bind_settings(core::Schema& schema, const std::string& table, MatchingSettings& to);

/// Where and with which noise a stage computes.
struct StageContext {
    diffusion::NoiseSchedule noise;
    backends::Compute compute{};
    std::uint64_t seed = 0;
    std::string stream;  // names the random streams, e.g. "teacher" or "dm/2"
};

}  // namespace atelier::distillation
