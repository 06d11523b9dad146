#pragma once

#include <optional>
#include <set>
#include <span>

#include "atelier/backends/torch/parameters.h"
#include "atelier/graph/ops.h"

namespace atelier::backends {

/// How networks are computed in training.
struct Compute {
    /// The type of matrix products and convolutions: bfloat16 or half, with parameters and losses
    /// in float32 (autocast). Nullopt: float32.
    std::optional<at::ScalarType> type{};
    /// Activation checkpointing: blocks retain only their inputs for the backward pass and are
    /// recomputed there.
    bool recompute = false;
};

/// Runs the op set with LibTorch: values are tensors, computed immediately and under autograd where
/// gradients are enabled. The element type is that of the parameters, or the one that autocast
/// chooses.
class TorchOps : public graph::Ops {
public:
    /// `parameters` must outlive this; a network's tensor "a.weight" is read as `prefix` +
    /// "a.weight".
    explicit TorchOps(const Parameters& parameters, std::string prefix = "",
                      bool recompute = false);

    graph::Shape shape(const graph::Value& x) const override;
    graph::Value conv2d(const graph::Value& x, const std::string& name,
                        const graph::Convolution& layer) override;
    graph::Value linear(const graph::Value& x, const std::string& name,
                        const graph::Linear& layer) override;
    graph::Value group_norm(const graph::Value& x, const std::string& name,
                            const graph::GroupNorm& layer) override;
    graph::Value layer_norm(const graph::Value& x, const std::string& name, double eps) override;
    graph::Value attention(const graph::Value& qkv, std::int64_t heads) override;
    graph::Value resample(const graph::Value& x, graph::Resample mode) override;
    graph::Value concat(const graph::Value& a, const graph::Value& b) override;
    graph::Value add(const graph::Value& a, const graph::Value& b) override;
    graph::Value scale(const graph::Value& x, double factor) override;
    graph::Value silu(const graph::Value& x) override;
    graph::Value sinusoid(const graph::Value& x, const graph::Sinusoid& layer) override;
    graph::Value fourier(const graph::Value& x, const std::string& name,
                         std::int64_t width) override;
    graph::Value pixel_unshuffle(const graph::Value& x, std::int64_t factor) override;
    graph::Value pixel_shuffle(const graph::Value& x, std::int64_t factor) override;
    graph::Value global_average(const graph::Value& x) override;
    graph::Value embedding(const graph::Value& ids, const std::string& name, std::int64_t rows,
                           std::int64_t width) override;
    graph::Value add_positions(const graph::Value& x, const std::string& name,
                               std::int64_t rows) override;
    graph::Value token_attention(const graph::Value& q, const graph::Value& k,
                                 const graph::Value& v,
                                 const graph::TokenAttention& layer) override;
    graph::Value gelu(const graph::Value& x) override;
    graph::Value quick_gelu(const graph::Value& x) override;
    graph::Value geglu(const graph::Value& x) override;
    graph::Value tokens(const graph::Value& image) override;
    graph::Value image(const graph::Value& tokens, std::int64_t height,
                       std::int64_t width) override;
    graph::Value pad_corner(const graph::Value& x) override;
    graph::Value block(std::span<const graph::Value> inputs, const Body& body) override;

    /// Adds the names of all parameters that are read from now on to `names`, which must outlive
    /// this.
    void record_reads(std::set<std::string>& names) { parameters_read_ = &names; }

private:
    const Tensor& parameter(const std::string& name) const;

    const Parameters& parameters_;
    std::string prefix_;
    bool recompute_;
    std::set<std::string>* parameters_read_ = nullptr;
};

inline Tensor tensor_of(const graph::Value& value) { return std::any_cast<Tensor>(value); }

/// While alive, matrix products and convolutions on `device` compute in `type`, bfloat16 or half,
/// while parameters stay float32 (autocast). Without a type it does nothing.
class LowPrecision {
public:
    LowPrecision(at::DeviceType device, std::optional<at::ScalarType> type);
    ~LowPrecision();
    LowPrecision(const LowPrecision&) = delete;
    LowPrecision& operator=(const LowPrecision&) = delete;

private:
    at::DeviceType device_;
    bool active_, before_ = false;
};

}  // namespace atelier::backends
