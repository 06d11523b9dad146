#pragma once

#include <memory>

#include "atelier/ops/ops.h"

namespace atelier::ops {

/// A parameter that a network reads.
struct ParameterSpec {
    std::string name;
    Shape shape;
    Init init;
    std::int64_t fan_in;
    double base = 0.0;  // constant added to the drawn value: 1 for the weights of norms
};

/// How the speaker whose memory is asked about keeps values.
struct Keeping {
    bool backward = false;    // those that the backward pass reads stay
    bool recompute = false;   // of blocks, only the inputs do
    double width = 4;         // bytes a number that convolutions, linear layers and attention read and write: 2 under autocast
    bool fused_norm = true;   // TorchOps' one pass on CPUs; else LibTorch's parts, in float32
};

/// Memory of a walk through a network, in bytes.
struct Memory {
    double held = 0;    // by values that are still wanted, at the present place
    double most = 0;    // the most of held so far
    double largest = 0; // value
    double block = 0;   // the most that a block keeps while it is computed again
    /// Behind every layer: what is held for the backward pass, and how many parameters came so far.
    struct Place {
        double held, parameters;
    };
    std::vector<Place> places;
};

/// Throws core::Error naming the layer and the shape, unless `holds`.
void require_fit(bool holds, const std::string& layer, const Shape& shape, const char* wanted);

/// Speaks the vocabulary without computing: values are shapes. After a network has run through it, `parameters` lists what it
/// reads, in order, `flops` the multiply-adds of its convolutions, linear layers and attention, counted as two operations, and `memory` what the
/// values take, for as long as the network (or under Keeping::backward, LibTorch's autograd) holds them.
/// Throws core::Error when shapes do not fit, naming the layer.
class ShapeOps : public Ops {
public:
    explicit ShapeOps(const Keeping& keeping = {});

    std::vector<ParameterSpec> parameters;
    double flops = 0;
    const Memory& memory() const { return *memory_; }

    Shape shape(const Value& x) const override;
    Value conv2d(const Value& x, const std::string& name, const Convolution& layer) override;
    Value linear(const Value& x, const std::string& name, const Linear& layer) override;
    Value group_norm(const Value& x, const std::string& name, const GroupNorm& layer) override;
    Value layer_norm(const Value& x, const std::string& name, double eps) override;
    Value attention(const Value& qkv, std::int64_t heads) override;
    Value resample(const Value& x, Resample how) override;
    Value concat(const Value& a, const Value& b) override;
    Value add(const Value& a, const Value& b) override;
    Value scale(const Value& x, double factor) override;
    Value silu(const Value& x) override;
    Value sinusoid(const Value& x, const Sinusoid& layer) override;
    Value fourier(const Value& x, const std::string& name, std::int64_t width) override;
    Value pixel_unshuffle(const Value& x, std::int64_t factor) override;
    Value pixel_shuffle(const Value& x, std::int64_t factor) override;
    Value global_average(const Value& x) override;
    Value embedding(const Value& ids, const std::string& name, std::int64_t rows, std::int64_t width) override;
    Value add_positions(const Value& x, const std::string& name, std::int64_t rows) override;
    Value token_attention(const Value& q, const Value& k, const Value& v, const TokenAttention& how) override;
    Value gelu(const Value& x) override;
    Value quick_gelu(const Value& x) override;
    Value geglu(const Value& x) override;
    Value tokens(const Value& image) override;
    Value image(const Value& tokens, std::int64_t height, std::int64_t width) override;
    Value pad_corner(const Value& x) override;
    Value block(std::span<const Value> inputs, const Body& body) override;

protected:
    void add_parameter(ParameterSpec spec);
    Value made(const Shape& shape) { return made(shape, keeping_.width); }
    /// The backward pass reads `x`.
    void keep(const Value& x) { keep(x, keeping_.width); }

private:
    void norm_parameters(const std::string& name, std::int64_t channels);
    Value made(const Shape& shape, double width);
    /// The backward pass reads `x` as a tensor of `width` bytes a number: itself, or a copy.
    void keep(const Value& x, double width);
    void keep_bytes(double bytes);
    void note_place();

    Keeping keeping_;
    std::shared_ptr<Memory> memory_;
    double parameters_so_far_ = 0;
    double* in_block_ = nullptr;  // counts what the block at hand would keep
};

std::int64_t elements(const Shape& shape);

}  // namespace atelier::ops
