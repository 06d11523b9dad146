#pragma once

#include "atelier/diffusion/denoiser.h"

namespace atelier::diffusion {

/// Outputs of a text tower: hidden states of all tokens [N,T,width], and embeddings [N,width] of
/// unit length, the state at the end token over its norm.
struct EncodedText {
    Tensor states, embeddings;
};

/// Encodes `ids` [N,T] int64 on the parameters' device.
EncodedText encode_text(const networks::ClipText& tower, const backends::Parameters& parameters,
                        const Tensor& ids);

/// `condition` with labels: its own, or the embeddings of its ids by the network's text tower.
Condition with_labels(const networks::Network& network, const backends::Parameters& parameters,
                      const Condition& condition);

/// The position of the end token in each row of `ids` [N,T], [N] int64. Configs from before
/// transformers 4.24 say 2, which is not CLIP's end token; the end is then the largest id.
Tensor end_positions(const networks::ClipText& tower, const Tensor& ids);

}  // namespace atelier::diffusion
