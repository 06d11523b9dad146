#pragma once

#include <functional>
#include <optional>
#include <span>

#include "atelier/graph/graph.h"

namespace atelier::graph {

class Builder;

/// A part of a network: adds its ops and returns its result. It must depend only on its arguments.
using Body = std::function<Value(Builder& ops, std::span<const Value> inputs)>;

/// Records a graph: networks are functions that call one method per layer. Every method checks the
/// shapes and throws core::Error naming the layer when they do not fit. See graph.h for what the
/// ops compute.
class Builder {
public:
    Value input(const Shape& shape);
    /// The graph of all ops added so far, whose results are `outputs`.
    Graph finished(std::vector<Value> outputs) &&;

    const Shape& shape(Value x) const;

    Value conv2d(Value x, const std::string& name, Conv2d layer);
    Value linear(Value x, const std::string& name, Linear layer);
    Value group_norm(Value x, const std::string& name, GroupNorm layer,
                     std::optional<Value> modulation = std::nullopt);
    Value layer_norm(Value x, const std::string& name, double eps);
    /// Without parameters.
    Value layer_norm(Value x, double eps);
    Value rms_norm(Value x, const std::string& name, const RmsNorm& layer);
    Value attention(Value qkv, std::int64_t heads);
    Value resample(Value x, Resample mode);
    Value concat(Value a, Value b);
    Value slice(Value x, std::int64_t first, std::int64_t count);
    Value add(Value a, Value b);
    Value multiply(Value a, Value b);
    Value scale(Value x, double factor, double shift = 0);
    Value silu(Value x);
    Value relu(Value x);
    Value tanh(Value x);
    Value sinusoid(Value x, const Sinusoid& layer);
    Value fourier(Value x, const std::string& name, std::int64_t width);
    Value pixel_unshuffle(Value x, std::int64_t factor);
    Value pixel_shuffle(Value x, std::int64_t factor, bool blocks_first = false);
    Value global_average(Value x);
    Value embedding(Value ids, const std::string& name, std::int64_t rows, std::int64_t width);
    Value add_positions(Value x, const std::string& name, std::int64_t rows);
    Value cropped_positions(Value x, const std::string& name, CroppedPositions layer);
    Value grid_sinusoid(Value x, const GridSinusoid& layer);
    Value token_attention(Value q, Value k, Value v, const TokenAttention& layer);
    Value gelu(Value x, bool tanh = false);
    Value quick_gelu(Value x);
    Value geglu(Value x);
    Value tokens(Value image);
    Value image(Value tokens, std::int64_t height, std::int64_t width);
    Value pad_corner(Value x);
    Value block(std::span<const Value> inputs, const Body& body);

private:
    Value node(Op op, std::vector<Value> inputs, Shape shape);
    void norm_parameters(const std::string& name, std::int64_t channels);

    Graph graph_;
};

/// A function that records its results for some inputs.
using Function = std::function<std::vector<Value>(Builder& ops, std::span<const Value> inputs)>;

Graph record(const std::vector<Shape>& inputs, const Function& function);

}  // namespace atelier::graph
