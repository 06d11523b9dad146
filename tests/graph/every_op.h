#pragma once

#include <set>

#include "atelier/graph/builder.h"

namespace atelier::graph {

/// The names of the alternatives of Op.
inline std::set<std::string> names_of_all_ops() {
    return []<class... Ops>(std::variant<Ops...>*) {
        return std::set<std::string>{Ops::op_name...};
    }(static_cast<Op*>(nullptr));
}

/// A graph of every op: inputs an image [2,3,16,8], a number [2] and token ids [2,4]; outputs
/// [2,3] and [2,4,8,4].
inline Graph record_every_op() {
    return record({{2, 3, 16, 8}, {2}, {2, 4}}, [](Builder& ops, std::span<const Value> in) {
        const Value image = in[0], number = in[1], ids = in[2];
        const Value embedding = ops.add(ops.linear(ops.silu(ops.sinusoid(number, {.width = 6})),
                                                   "embed", {.out_features = 16, .bias = false}),
                                        ops.fourier(number, "freqs", 16));
        const Value patches = ops.pixel_unshuffle(image, 2);
        const Value wide = ops.conv2d(patches, "wide",
                                      {.out_channels = 8, .kernel = 4, .stride = 2, .padding = 1});
        const Value read[]{wide, embedding};
        const Value norm = ops.block(read, [](Builder& inner, std::span<const Value> at) {
            return inner.group_norm(at[0], "norm", {.groups = 2, .silu = true}, at[1]);
        });
        const Value down = ops.resample(norm, Resample::down);
        const Value up = ops.resample(down, Resample::up);
        const Value same = ops.add(ops.scale(ops.resample(up, Resample::none), 0.5), norm);
        const Value attended = ops.attention(
            ops.conv2d(same, "qkv", {.out_channels = 24, .kernel = 1, .padding = 0}), 2);
        const Value joined = ops.concat(attended, same);
        const Value shuffled = ops.pixel_shuffle(joined, 2);  // [2,4,8,4]
        const Value features = ops.global_average(joined);
        const Value words =
            ops.add_positions(ops.embedding(ids, "words", 9, 4), "places", 5);  // [2,4,4]
        const Value pixels = ops.tokens(shuffled);                              // [2,32,4]
        const Value seen = ops.token_attention(pixels, words, words, {.heads = 2});
        const Value gated =
            ops.geglu(ops.quick_gelu(ops.gelu(ops.linear(seen, "gate", {.out_features = 8}))));
        const Value placed = ops.grid_sinusoid(
            ops.cropped_positions(gated, "grid", {.side = 9, .height = 8, .width = 4}),
            {.height = 8, .width = 4, .base = 8});
        const Value scaled = ops.multiply(
            ops.rms_norm(placed, "rms", {.heads = 2, .eps = 1e-6}),
            ops.tanh(ops.relu(ops.slice(ops.linear(embedding, "row", {.out_features = 9}), 2, 4))));
        const Value back = ops.image(scaled, 8, 4);
        ops.pad_corner(back);
        return std::vector{
            ops.linear(ops.layer_norm(features, "features", 1e-5), "logits", {.out_features = 3}),
            back};
    });
}

}  // namespace atelier::graph
