#pragma once

#include "atelier/diffusion/denoiser.h"
#include "atelier/diffusion/noise_levels.h"

namespace atelier::distillation {

/// The GAN head on the fake score's bottleneck. `parameters` hold the fake score ("model.") and the
/// head ("head."); both references must outlive the object.
class BottleneckDiscriminator {
public:
    BottleneckDiscriminator(const diffusion::EdmDenoiser& fake_score,
                            const backends::Parameters& parameters);

    /// Logits [N] of a bottleneck that the fake score has already computed.
    Tensor logits(const Tensor& bottleneck) const;
    /// Logits [N] of noised samples `x_t` [N,...] at `sigma` [N]: positive means real.
    Tensor logits(const Tensor& x_t, const Tensor& sigma,
                  const diffusion::Condition& condition) const;

private:
    const diffusion::EdmDenoiser& fake_score_;
    const backends::Parameters& parameters_;
};

/// Randomly initialised parameters of a head for the bottleneck of `network`, under "head.".
backends::Parameters init_head(const networks::Network& network, std::uint64_t seed);
/// Throws core::Error naming `where` unless `head` fits the bottleneck of `network`.
void check_head(const backends::Parameters& head, const networks::Network& network,
                const std::string& where);

/// mean softplus(-h(fake)): the generator's non-saturating loss.
Tensor generator_gan_loss(const Tensor& fake_logits);

/// The discriminator's losses, mean softplus(-h(real)) and mean softplus(h(fake)).
Tensor loss_on_real(const Tensor& real_logits);
Tensor loss_on_fake(const Tensor& fake_logits);

/// fake_weight loss_on_fake + loss_on_real. `fake_logits` may be empty.
Tensor discriminator_loss(const Tensor& real_logits, const Tensor& fake_logits,
                          double fake_weight = 1.0);

/// R1: mean squared norm of d logit / d x over real samples (Mescheder et al. 2018). `x_t` must
/// require gradients.
Tensor r1_penalty(const Tensor& real_logits, const Tensor& x_t);

}  // namespace atelier::distillation
