#pragma once

#include "atelier/graph/builder.h"

/// Blocks that transformers with adaptive normalisation share (Peebles and Xie 2023).
namespace atelier::networks {

/// x (1 + scale) + shift, of tokens [N,T,C] with scale and shift [N,C].
graph::Value modulated(graph::Builder& ops, graph::Value x, graph::Value shift, graph::Value scale);

/// The layer normalisation without parameters before every part of a block.
inline constexpr double adaptive_norm_eps = 1e-6;

/// Part `i` of an adaptive normalisation's `row` [N,parts*width]: [N,width].
graph::Value part_of(graph::Builder& ops, graph::Value row, std::int64_t i, std::int64_t width);

/// linear_2(silu(linear_1(x))) of features [N,F]: [N,width].
graph::Value embedded(graph::Builder& ops, graph::Value x, const std::string& name,
                      std::int64_t width);

enum class FeedForward { gelu, gelu_tanh, geglu };

/// diffusers' FeedForward: a hidden layer four times as wide as the tokens [N,T,C].
graph::Value feed_forward(graph::Builder& ops, graph::Value x, const std::string& name,
                          FeedForward kind);

/// Tokens [N,h*w,patch^2*channels] of the patches of an image, the channels of each pixel side by
/// side: [N,channels,h*patch,w*patch].
graph::Value image_of_patches(graph::Builder& ops, graph::Value tokens, std::int64_t height,
                              std::int64_t width, std::int64_t patch);

/// An image [N,C,H,W] as tokens of its patches: [N,H/patch*W/patch,width].
graph::Value patches_of_image(graph::Builder& ops, graph::Value image, const std::string& name,
                              std::int64_t patch, std::int64_t width);

}  // namespace atelier::networks
