#include "atelier/backends/torch/torch_ops.h"

namespace atelier::backends {

graph::Value TorchOps::embedding(const graph::Value& ids, const std::string& name, std::int64_t,
                                 std::int64_t) {
    return at::embedding(parameter(name + ".weight"), tensor_of(ids));
}

graph::Value TorchOps::add_positions(const graph::Value& x, const std::string& name, std::int64_t) {
    const Tensor in = tensor_of(x);
    return in + parameter(name + ".weight").narrow(0, 0, in.size(1));
}

graph::Value TorchOps::token_attention(const graph::Value& q, const graph::Value& k,
                                       const graph::Value& v, const graph::TokenAttention& layer) {
    const auto split = [&](const graph::Value& x) {
        const Tensor t = tensor_of(x);
        return t.reshape({t.size(0), t.size(1), layer.heads, t.size(2) / layer.heads})
            .transpose(1, 2);
    };
    const Tensor attended =
        at::scaled_dot_product_attention(split(q), split(k), split(v), {}, 0.0, layer.causal);
    return attended.transpose(1, 2).flatten(2);
}

graph::Value TorchOps::gelu(const graph::Value& x) { return at::gelu(tensor_of(x)); }

graph::Value TorchOps::quick_gelu(const graph::Value& x) {
    const Tensor in = tensor_of(x);
    return in * at::sigmoid(in * 1.702);
}

graph::Value TorchOps::geglu(const graph::Value& x) {
    const auto halves = tensor_of(x).chunk(2, -1);
    return halves[0] * at::gelu(halves[1]);
}

graph::Value TorchOps::tokens(const graph::Value& image) {
    return tensor_of(image).flatten(2).transpose(1, 2).contiguous();
}

graph::Value TorchOps::image(const graph::Value& tokens, std::int64_t height, std::int64_t width) {
    const Tensor in = tensor_of(tokens);
    return in.transpose(1, 2).reshape({in.size(0), in.size(2), height, width});
}

graph::Value TorchOps::pad_corner(const graph::Value& x) {
    return at::constant_pad_nd(tensor_of(x), {0, 1, 0, 1});
}

}  // namespace atelier::backends
