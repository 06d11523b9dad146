#include "atelier/pipeline/matching_settings.h"

#include "atelier/pipeline/perceptual_losses.h"

namespace atelier::pipeline {

namespace {

distillation::AdversarialSettings adversarial_settings(const MatchingConfig& from) {
    distillation::AdversarialSettings gan;
    gan.gan_weight = from.gan_weight;
    gan.gan_balance = from.gan_balance;
    gan.discriminator_weight = from.discriminator_weight;
    gan.highest_level = from.gan_highest_level;
    gan.r1_weight = from.r1_weight;
    gan.divergence = from.divergence;
    return gan;
}

}  // namespace

distillation::MatchingSettings matching_settings(const RunConfig& config, StageKind stage,
                                                 const models::Model& student) {
    const MatchingConfig& from = stage == StageKind::dm ? config.dm : config.adm;
    distillation::MatchingSettings to;
    to.steps = from.steps;
    to.batch = from.batch;
    to.micro_batch = from.micro_batch;
    to.fake_updates = from.fake_updates;
    to.student = from.student;
    to.fake = from.fake;
    to.noise = student.noise;
    to.compute = config.compute();
    to.score_identity = from.loss == "sid";
    to.sid_alpha = from.sid_alpha;
    to.regression_weight = from.regression == "none" ? 0.0 : from.regression_weight;
    to.seed = static_cast<std::uint64_t>(config.seed);
    if (stage == StageKind::adm) to.adversarial = adversarial_settings(from);
    return to;
}

distillation::RegressionLoss regression_loss(const RunConfig& config, const MatchingConfig& stage,
                                             const std::string& classifier, at::Device device) {
    if (stage.regression == "pseudo_huber") return distillation::pseudo_huber;
    if (stage.regression == "lpips") return lpips_loss(config.lpips, device);
    if (stage.regression == "perceptual") return perceptual_loss(classifier, device);
    return {};
}

}  // namespace atelier::pipeline
