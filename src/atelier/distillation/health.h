#pragma once

#include <array>

#include "atelier/distillation/stage.h"

namespace atelier::distillation {

/// Samples whose std is at least this fraction of the data's count as diverse.
inline constexpr double min_diversity = 0.5;

/// Statistics of a fixed set of probe samples.
struct ProbeStatistics {
    double saturation = 0;  // fraction of values beyond the data's range
    double diversity = 0;   // mean per-element std across samples, over that of the real data
    bool finite = true;
    bool was_diverse = false;  // an earlier probe of the stage was diverse
};

/// `samples` and `real` [N,...] in model space.
ProbeStatistics probe_statistics(const Tensor& samples, const Tensor& real);

/// Checks a distillation by its latest metrics and probe. Metrics used: dm_gradient, gan_gradient
/// (norms on the generator's output), real_logit, fake_logit, fake_lag (the fake score's loss over
/// the teacher's at the same noise). Warns of over-saturation, low diversity, a GAN gradient that
/// dwarfs distribution matching's, a head that has won, and a fake score that lags; reports a
/// collapse when earlier diversity is nearly gone or samples are not finite. (A student that starts
/// from its teacher begins with nearly equal samples, the data's mean, so low diversity alone is
/// not a collapse.)
std::vector<Finding> judge(const Metrics& metrics, const ProbeStatistics& probe);

/// The denoising loss of an untrained network, which predicts zeros: the loss weights normalise
/// every level to this value (Karras et al. 2022).
inline constexpr double untrained_loss = 1.0;

/// Checks a teacher's training by its logged losses and distances of its samples to the data, each
/// (step, value). Returns one finding, or none if nothing was logged.
std::vector<Finding> judge_teacher(const std::vector<std::array<double, 2>>& losses,
                                   const std::vector<std::array<double, 2>>& distances);

/// The value of a metric, or NaN. Measurements must have been read.
double metric(const Metrics& metrics, const std::string& name);
double metric(const Measurements& metrics, const std::string& name);

}  // namespace atelier::distillation
