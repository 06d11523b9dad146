#pragma once

#include <optional>
#include <set>
#include <span>

#include "atelier/ops/ops.h"
#include "atelier/ops/parameters.h"

namespace atelier::ops {

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
class TorchOps : public Ops {
public:
    /// `parameters` must outlive this; a network's tensor "a.weight" is read as `prefix` +
    /// "a.weight".
    explicit TorchOps(const Parameters& parameters, std::string prefix = "",
                      bool recompute = false);

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

inline Tensor tensor_of(const Value& value) { return std::any_cast<Tensor>(value); }

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

}  // namespace atelier::ops
