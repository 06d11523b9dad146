#pragma once

#include <memory>

#include "atelier/graph/ops.h"

namespace atelier::graph {

/// A parameter that a network reads.
struct ParameterSpec {
    std::string name;
    Shape shape;
    Init init;
    std::int64_t fan_in;
    double base = 0.0;  // added to the random value: 1 for the weights of norms
};

/// Which activations the backend whose memory is estimated retains.
struct ActivationPolicy {
    bool backward = false;    // retain the values that the backward pass reads
    bool recompute = false;   // retain only the inputs of blocks
    double element_size = 4;  // bytes per element that convolutions, linear layers and attention
                              // read and write: 2 under autocast
    bool fused_norm =
        true;  // TorchOps' fused CPU kernel; otherwise LibTorch's operations, in float32
};

/// Activation memory of a trace through a network, in bytes.
struct MemoryEstimate {
    double retained = 0;  // by values that are alive at this point
    double peak = 0;      // maximum of `retained` so far
    double largest = 0;   // single value
    double block = 0;     // the maximum that a block retains while it is recomputed
    /// After each layer: what is retained for the backward pass, and the number of parameters so
    /// far.
    struct Layer {
        double retained, parameters;
    };
    std::vector<Layer> layers;
};

/// Throws core::Error naming the layer and the shape unless `holds`.
void require_fit(bool holds, const std::string& layer, const Shape& shape, const char* expected);

/// Traces the op set without computing: values are shapes. After a network has run through it,
/// `parameters` lists the parameters it reads, in order, `flops` counts the multiply-adds of its
/// convolutions, linear layers and attention as two operations each, and `memory` is the memory of
/// the values, for as long as the network (or LibTorch's autograd under ActivationPolicy::backward)
/// holds them. Throws core::Error naming the layer when shapes do not fit.
class ShapeOps : public Ops {
public:
    explicit ShapeOps(const ActivationPolicy& policy = {});

    std::vector<ParameterSpec> parameters;
    double flops = 0;
    const MemoryEstimate& memory() const { return *memory_; }

    Shape shape(const Value& x) const override;
    Value conv2d(const Value& x, const std::string& name, const Convolution& layer) override;
    Value linear(const Value& x, const std::string& name, const Linear& layer) override;
    Value group_norm(const Value& x, const std::string& name, const GroupNorm& layer) override;
    Value layer_norm(const Value& x, const std::string& name, double eps) override;
    Value attention(const Value& qkv, std::int64_t heads) override;
    Value resample(const Value& x, Resample mode) override;
    Value concat(const Value& a, const Value& b) override;
    Value add(const Value& a, const Value& b) override;
    Value scale(const Value& x, double factor) override;
    Value silu(const Value& x) override;
    Value sinusoid(const Value& x, const Sinusoid& layer) override;
    Value fourier(const Value& x, const std::string& name, std::int64_t width) override;
    Value pixel_unshuffle(const Value& x, std::int64_t factor) override;
    Value pixel_shuffle(const Value& x, std::int64_t factor) override;
    Value global_average(const Value& x) override;
    Value embedding(const Value& ids, const std::string& name, std::int64_t rows,
                    std::int64_t width) override;
    Value add_positions(const Value& x, const std::string& name, std::int64_t rows) override;
    Value token_attention(const Value& q, const Value& k, const Value& v,
                          const TokenAttention& layer) override;
    Value gelu(const Value& x) override;
    Value quick_gelu(const Value& x) override;
    Value geglu(const Value& x) override;
    Value tokens(const Value& image) override;
    Value image(const Value& tokens, std::int64_t height, std::int64_t width) override;
    Value pad_corner(const Value& x) override;
    Value block(std::span<const Value> inputs, const Body& body) override;

protected:
    void add_parameter(ParameterSpec spec);
    Value output(const Shape& shape) { return output(shape, policy_.element_size); }
    /// Marks `x` as read by the backward pass.
    void save_for_backward(const Value& x) { save_for_backward(x, policy_.element_size); }

private:
    void norm_parameters(const std::string& name, std::int64_t channels);
    Value output(const Shape& shape, double width);
    /// Marks `x` as read by the backward pass with `width` bytes per element: itself, or a copy.
    void save_for_backward(const Value& x, double width);
    void save_bytes(double bytes);
    void record_layer();

    ActivationPolicy policy_;
    std::shared_ptr<MemoryEstimate> memory_;
    double parameter_count_ = 0;
    double* block_bytes_ = nullptr;  // counts what the current block would retain
};

std::int64_t elements(const Shape& shape);

}  // namespace atelier::graph
