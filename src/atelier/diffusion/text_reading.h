#pragma once

#include "atelier/diffusion/denoiser.h"

namespace atelier::diffusion {

/// Embeddings [N,width] of texts, each of length 1: the state at the end token, over its norm. `ids` [N,T] int64.
Tensor read_text(const networks::ClipText& tower, const ops::Parameters& parameters, const Tensor& ids);

/// `condition` with labels: those that it has, or what the network's text tower makes of its ids.
Condition with_labels(const networks::Network& network, const ops::Parameters& parameters, const Condition& condition);

/// Where the end token stands in each row of `ids` [N,T]. Configs from before transformers 4.24 say 2, which is no end token of CLIP's: the end is then the
/// largest id.
Tensor end_of(const networks::ClipText& tower, const Tensor& ids);

}  // namespace atelier::diffusion
