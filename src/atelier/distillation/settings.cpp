#include "atelier/distillation/settings.h"

#include "atelier/distillation/divergences.h"

namespace atelier::distillation {

namespace {

using Range = core::Schema::Range;

constexpr Range non_negative{.min = 0};
constexpr Range one_or_more{.min = 1};
constexpr Range a_fraction{.min = 0, .max = 1};
constexpr Range above_zero{.min = 1e-12};

constexpr const char* micro_batch_help =
    "samples computed together, with gradients accumulated over the batch; 0: all";

void bind_adversarial(core::Schema& schema, const std::string& table, AdversarialSettings& to) {
    const auto key = [&](const char* name) { return table + "." + name; };
    schema.text(key("divergence"), &to.divergence,
                "weights the gradient by the head's density ratio", divergences());
    schema.number_or_auto(
        key("gan_weight"), &to.gan_weight,
        "weight of the generator's GAN loss, or \"auto\": balance the gradient norms",
        non_negative);
    schema.number(key("gan_balance"), &to.gan_balance,
                  "auto: GAN gradient norm over distribution-matching norm", above_zero);
    schema.number(key("discriminator_weight"), &to.discriminator_weight,
                  "weight of the head's loss beside the fake score's", above_zero);
    schema.number(key("gan_highest_level"), &to.highest_level,
                  "the head sees samples noised by up to this level of 999",
                  {.min = 0, .max = 999});
    schema.number(key("r1_weight"), &to.r1_weight, "R1 penalty on the head; 0: none", non_negative);
}

}  // namespace

const std::vector<std::pair<std::string, PairLoss>>& pair_losses() {
    static const std::vector<std::pair<std::string, PairLoss>> all{
        {"none", PairLoss::none},
        {"pseudo_huber", PairLoss::pseudo_huber},
        {"perceptual", PairLoss::perceptual},
        {"lpips", PairLoss::lpips},
    };
    return all;
}

void bind_settings(core::Schema& schema, const std::string& prefix, Optimization& to,
                   bool averages) {
    const auto key = [&](const char* name) { return prefix + name; };
    schema.number(key("lr"), &to.lr, "AdamW learning rate", above_zero);
    schema.number(key("beta1"), &to.beta1, "AdamW first decay", a_fraction);
    schema.number(key("beta2"), &to.beta2, "AdamW second decay", a_fraction);
    schema.number(key("weight_decay"), &to.weight_decay, "decoupled weight decay", non_negative);
    schema.number(key("clip"), &to.clip, "largest gradient norm; 0: no clipping", non_negative);
    schema.number(key("warmup"), &to.warmup, "updates until the full rate", non_negative);
    schema.number(key("decay_from"), &to.decay_from,
                  "fraction of the stage after which the rate falls linearly", a_fraction);
    schema.number(key("final_share"), &to.final_share, "fraction of lr that is left at the end",
                  a_fraction);
    schema.number(key("ema_decay"), &to.ema_decay, "decay of the weights' average; 0: none is kept",
                  a_fraction);
    if (averages) {
        schema.numbers(
            key("more_ema_decays"), &to.more_ema_decays,
            "decays of further averages, written beside as model-ema-<decay>.safetensors",
            a_fraction);
    }
}

void bind_settings(core::Schema& schema, const std::string& table, ScoreMatchingSettings& to,
                   std::string steps) {
    schema.number(table + ".steps", &to.steps, std::move(steps), non_negative);
    schema.number(table + ".batch", &to.batch, "samples per step", one_or_more);
    schema.number(table + ".micro_batch", &to.micro_batch, micro_batch_help, non_negative);
    bind_settings(schema, table + ".", to.optimization, true);
}

void bind_settings(core::Schema& schema, const std::string& table, MatchingSettings& to) {
    const auto key = [&](const char* name) { return table + "." + name; };
    schema.number(key("steps"), &to.steps, "generator updates; 0: the stage is skipped",
                  non_negative);
    schema.number(key("batch"), &to.batch, "samples per update", one_or_more);
    schema.number(key("micro_batch"), &to.micro_batch, micro_batch_help, non_negative);
    schema.number(key("fake_updates"), &to.fake_updates,
                  "fake-score updates per generator update (TTUR)", one_or_more);
    schema.number(key("critic_warmup"), &to.critic_warmup,
                  "fake-score updates before the first generator update; -1: none where the fake "
                  "score was trained beside the "
                  "weights that the stage begins with, else a tenth of the steps, 200 at most",
                  {.min = -1, .max = 1e6});
    bind_settings(schema, table + ".", to.student, true);
    bind_settings(schema, table + ".fake_", to.fake, false);
    schema.choice(key("loss"), &to.loss, "distribution_matching (DMD) or sid (score identity)",
                  {
                      {"distribution_matching", MatchingLoss::distribution_matching},
                      {"sid", MatchingLoss::score_identity},
                  });
    schema.number(key("sid_alpha"), &to.sid_alpha, "alpha of SiD", non_negative);
    schema.choice(key("regression"), &to.regression, "loss on the pairs", pair_losses());
    schema.number(key("regression_weight"), &to.regression_weight,
                  "weight of the loss on the pairs", non_negative);
    schema.flag(key("keep_best"), &to.keep_best,
                "end with the weights of the lowest probe distance, not the last");
    if (to.adversarial) bind_adversarial(schema, table, *to.adversarial);
}

}  // namespace atelier::distillation
