#pragma once

#include <array>

#include "atelier/distillation/stage.h"

namespace atelier::distillation {

/// From this share of the data's deviation on samples count as diverse.
inline constexpr double least_diversity = 0.5;

/// What a fixed set of probe samples looks like.
struct ProbeReading {
    double saturation = 0;  // share of values beyond the data's range
    double diversity = 0;   // mean deviation across samples of one element, over the real data's
    bool finite = true;
    bool was_diverse = false;  // an earlier probe of the stage varied about as the data do
};

/// `samples` and `real` [N,...] in model space.
ProbeReading read_probe(const Tensor& samples, const Tensor& real);

/// Plain-words judgement of a distillation from its latest metrics and probe. Metrics read: dm_gradient, gan_gradient (norms on the generator's
/// output), real_logit, fake_logit, fake_lag (the fake score's loss over the teacher's at the same noise). Warnings for
/// over-saturation, shrinking diversity, a GAN that dwarfs or is dwarfed by distribution matching, a head that has won, a fake score that
/// lags; a collapse when diversity that was there is nearly gone or samples are no numbers. (A student that starts from its teacher begins with
/// nearly equal samples, the data's mean, so little diversity alone is no collapse.)
std::vector<Finding> judge(const Metrics& metrics, const ProbeReading& probe);

/// The denoising loss of a network that has learned nothing: a prediction of zeros has it, since each level's loss is weighed to that (Karras et al. 2022).
inline constexpr double loss_of_nothing = 1.0;

/// Plain-words judgement of a teacher's training, from its losses and the distances of its samples to the data as they were logged (step, value). One finding, or
/// nothing where nothing was logged.
std::vector<Finding> judge_teacher(const std::vector<std::array<double, 2>>& losses, const std::vector<std::array<double, 2>>& distances);

/// The value of a metric, or NaN.
double metric(const Metrics& metrics, const std::string& name);

}  // namespace atelier::distillation
