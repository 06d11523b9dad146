#pragma once

#include <string>
#include <vector>

#include "atelier/backends/torch/torch.h"

namespace atelier::distillation {

/// The valid names of `adm.divergence`.
std::vector<std::string> divergences();

/// The weight of each sample's distribution-matching gradient under a divergence (f-distill): h(r)
/// of the density ratio r = exp(clamp(logit, -10, 10)) that the GAN head estimates, normalised to
/// mean 1, detached. `logits` [N] -> [N]. Reverse KL is 1, forward KL r, Jensen-Shannon r/(1+r),
/// squared Hellinger sqrt r, softened reverse KL 1/(1+r), Neyman 1/r, Jeffreys 1+r.
Tensor divergence_weight(const std::string& name, const Tensor& logits);

}  // namespace atelier::distillation
