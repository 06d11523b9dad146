#pragma once

#include "atelier/diffusion/denoiser.h"

namespace atelier::diffusion {

/// What a text tower makes of texts: states of all their tokens [N,T,width], and embeddings [N,width] of length 1, the state at the end token over its norm.
struct TextReading {
    Tensor states, embeddings;
};

/// `ids` [N,T] int64; computed where the parameters lie.
TextReading read_text(const networks::ClipText& tower, const ops::Parameters& parameters, const Tensor& ids);

/// `condition` with labels: those that it has, or what the network's text tower makes of its ids.
Condition with_labels(const networks::Network& network, const ops::Parameters& parameters, const Condition& condition);

/// Where the end token stands in each row of `ids` [N,T]. Configs from before transformers 4.24 say 2, which is no end token of CLIP's: the end is then the
/// largest id.
Tensor end_of(const networks::ClipText& tower, const Tensor& ids);

}  // namespace atelier::diffusion
