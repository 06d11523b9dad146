#pragma once

#include "atelier/backends/torch/torch_ops.h"

namespace atelier::backends {

/// Ops computed one at a time, so that a test sees every result: records a graph of one op and runs
/// it with TorchOps.
class Immediate {
public:
    explicit Immediate(const Parameters& parameters, std::string prefix = "")
        : backend_(parameters, std::move(prefix)) {}

    Tensor conv2d(const Tensor& x, const std::string& name, const graph::Conv2d& layer) const {
        return one({x}, [&](auto& ops, auto in) { return ops.conv2d(in[0], name, layer); });
    }
    Tensor linear(const Tensor& x, const std::string& name, const graph::Linear& layer) const {
        return one({x}, [&](auto& ops, auto in) { return ops.linear(in[0], name, layer); });
    }
    Tensor group_norm(const Tensor& x, const std::string& name,
                      const graph::GroupNorm& layer) const {
        return one({x}, [&](auto& ops, auto in) { return ops.group_norm(in[0], name, layer); });
    }
    Tensor group_norm(const Tensor& x, const std::string& name, const graph::GroupNorm& layer,
                      const Tensor& modulation) const {
        return one({x, modulation},
                   [&](auto& ops, auto in) { return ops.group_norm(in[0], name, layer, in[1]); });
    }
    Tensor layer_norm(const Tensor& x, const std::string& name, double eps) const {
        return one({x}, [&](auto& ops, auto in) { return ops.layer_norm(in[0], name, eps); });
    }
    Tensor attention(const Tensor& qkv, std::int64_t heads) const {
        return one({qkv}, [&](auto& ops, auto in) { return ops.attention(in[0], heads); });
    }
    Tensor resample(const Tensor& x, graph::Resample mode) const {
        return one({x}, [&](auto& ops, auto in) { return ops.resample(in[0], mode); });
    }
    Tensor concat(const Tensor& a, const Tensor& b) const {
        return one({a, b}, [&](auto& ops, auto in) { return ops.concat(in[0], in[1]); });
    }
    Tensor add(const Tensor& a, const Tensor& b) const {
        return one({a, b}, [&](auto& ops, auto in) { return ops.add(in[0], in[1]); });
    }
    Tensor scale(const Tensor& x, double factor) const {
        return one({x}, [&](auto& ops, auto in) { return ops.scale(in[0], factor); });
    }
    Tensor silu(const Tensor& x) const {
        return one({x}, [&](auto& ops, auto in) { return ops.silu(in[0]); });
    }
    Tensor sinusoid(const Tensor& x, const graph::Sinusoid& layer) const {
        return one({x}, [&](auto& ops, auto in) { return ops.sinusoid(in[0], layer); });
    }
    Tensor fourier(const Tensor& x, const std::string& name, std::int64_t width) const {
        return one({x}, [&](auto& ops, auto in) { return ops.fourier(in[0], name, width); });
    }
    Tensor pixel_unshuffle(const Tensor& x, std::int64_t factor) const {
        return one({x}, [&](auto& ops, auto in) { return ops.pixel_unshuffle(in[0], factor); });
    }
    Tensor pixel_shuffle(const Tensor& x, std::int64_t factor) const {
        return one({x}, [&](auto& ops, auto in) { return ops.pixel_shuffle(in[0], factor); });
    }
    Tensor global_average(const Tensor& x) const {
        return one({x}, [&](auto& ops, auto in) { return ops.global_average(in[0]); });
    }

private:
    template <class Add>
    Tensor one(const std::vector<Tensor>& inputs, const Add& add) const {
        std::vector<graph::Shape> shapes;
        for (const Tensor& input : inputs) shapes.push_back(input.sizes().vec());
        const graph::Graph graph =
            graph::record(shapes, [&](graph::Builder& ops, std::span<const graph::Value> in) {
                return std::vector{add(ops, in)};
            });
        return backend_.run(graph, inputs)[0];
    }

    TorchOps backend_;
};

}  // namespace atelier::backends
