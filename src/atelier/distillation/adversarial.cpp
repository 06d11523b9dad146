#include "atelier/distillation/adversarial.h"

#include "atelier/backends/torch/torch_ops.h"
#include "atelier/networks/discriminator.h"

namespace atelier::distillation {

namespace {

std::vector<graph::Value> head_of(graph::Builder& ops, std::span<const graph::Value> bottleneck) {
    return {networks::discriminator_head(ops, bottleneck[0])};
}

}  // namespace

BottleneckDiscriminator::BottleneckDiscriminator(const diffusion::EdmDenoiser& fake_score,
                                                 const backends::Parameters& parameters)
    : fake_score_(fake_score), parameters_(parameters) {}

Tensor BottleneckDiscriminator::logits(const Tensor& bottleneck) const {
    return backends::TorchOps(parameters_)
        .run(fake_score_.network().graphs->head, head_of, std::span(&bottleneck, 1))[0]
        .flatten();
}

Tensor BottleneckDiscriminator::logits(const Tensor& x_t, const Tensor& sigma,
                                       const diffusion::Condition& condition) const {
    return logits(fake_score_.encode(x_t, sigma, condition));
}

namespace {

std::vector<graph::ParameterSpec> head_specs(const networks::Network& network) {
    return graph::record({networks::bottleneck_shape(network)}, head_of).parameters;
}

}  // namespace

backends::Parameters init_head(const networks::Network& network, std::uint64_t seed) {
    return backends::initialise(head_specs(network), seed);
}

void check_head(const backends::Parameters& head, const networks::Network& network,
                const std::string& where) {
    backends::check_against(head, head_specs(network), where);
}

Tensor generator_gan_loss(const Tensor& fake_logits) { return at::softplus(-fake_logits).mean(); }

Tensor loss_on_real(const Tensor& real_logits) { return at::softplus(-real_logits).mean(); }

Tensor loss_on_fake(const Tensor& fake_logits) { return at::softplus(fake_logits).mean(); }

Tensor discriminator_loss(const Tensor& real_logits, const Tensor& fake_logits,
                          double fake_weight) {
    const Tensor on_real = loss_on_real(real_logits);
    return fake_logits.numel() > 0 ? fake_weight * loss_on_fake(fake_logits) + on_real : on_real;
}

Tensor r1_penalty(const Tensor& real_logits, const Tensor& x_t) {
    const auto gradients =
        torch::autograd::grad({real_logits.sum()}, {x_t}, {}, std::nullopt, /*create_graph=*/true);
    return gradients[0].square().flatten(1).sum(1).mean();
}

}  // namespace atelier::distillation
