#include "atelier/backends/torch/torch_ops.h"
#include "atelier/backends/torch/transfer.h"
#include "atelier/graph/sinusoid.h"

namespace atelier::backends {

Tensor TorchOps::lower(const graph::Embedding& layer, const In& in) const {
    return at::embedding(parameter(layer.name + ".weight"), in[0]);
}

Tensor TorchOps::lower(const graph::AddPositions& layer, const In& in) const {
    return in[0] + parameter(layer.name + ".weight").narrow(0, 0, in[0].size(1));
}

Tensor cropped_table(const Tensor& table, const graph::CroppedPositions& layer) {
    return table.view({layer.side, layer.side, table.size(2)})
        .narrow(0, (layer.side - layer.height) / 2, layer.height)
        .narrow(1, (layer.side - layer.width) / 2, layer.width)
        .reshape({1, layer.height * layer.width, table.size(2)});
}

Tensor TorchOps::lower(const graph::CroppedPositions& layer, const In& in) const {
    return in[0] + cropped_table(parameter(layer.name), layer);
}

Tensor TorchOps::lower(const graph::GridSinusoid& layer, const In& in) const {
    const Tensor table =
        at::tensor(graph::grid_table(layer, in.shape()[2])).view({1, in.shape()[1], in.shape()[2]});
    return in[0] + to_device(table.to(in[0].scalar_type()), in[0].device());
}

Tensor TorchOps::lower(const graph::RmsNorm& layer, const In& in) const {
    const Tensor x = in[0].unflatten(2, {layer.heads, -1}), wide = x.to(at::kFloat);
    const Tensor scaled = wide * at::rsqrt(wide.square().mean({-1}, /*keepdim=*/true) + layer.eps);
    return (scaled.to(x.scalar_type()) * parameter(layer.name + ".weight")).flatten(2);
}

Tensor TorchOps::lower(const graph::TokenAttention& layer, const In& in) const {
    const auto split = [&](const Tensor& t) {
        return t.reshape({t.size(0), t.size(1), layer.heads, t.size(2) / layer.heads})
            .transpose(1, 2);
    };
    const Tensor attended = at::scaled_dot_product_attention(split(in[0]), split(in[1]),
                                                             split(in[2]), {}, 0.0, layer.causal);
    return attended.transpose(1, 2).flatten(2);
}

Tensor TorchOps::lower(const graph::Gelu& layer, const In& in) const {
    return at::gelu(in[0], layer.tanh ? "tanh" : "none");
}

Tensor TorchOps::lower(const graph::QuickGelu&, const In& in) const {
    return in[0] * at::sigmoid(in[0] * 1.702);
}

Tensor TorchOps::lower(const graph::Geglu&, const In& in) const {
    const auto halves = in[0].chunk(2, -1);
    return halves[0] * at::gelu(halves[1]);
}

Tensor TorchOps::lower(const graph::Tokens&, const In& in) const {
    return in[0].flatten(2).transpose(1, 2).contiguous();
}

Tensor TorchOps::lower(const graph::Image& layer, const In& in) const {
    const Tensor& x = in[0];
    return x.transpose(1, 2).reshape({x.size(0), x.size(2), layer.height, layer.width});
}

Tensor TorchOps::lower(const graph::PadCorner&, const In& in) const {
    return at::constant_pad_nd(in[0], {0, 1, 0, 1});
}

}  // namespace atelier::backends
