#pragma once

#include <map>
#include <optional>
#include <span>

#include "atelier/backends/torch/parameters.h"
#include "atelier/graph/execute.h"
#include "atelier/graph/graph_cache.h"

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

/// Runs recorded graphs with LibTorch: values are tensors, computed immediately and under autograd
/// where gradients are enabled. The element type is that of the parameters, or the one that
/// autocast chooses.
class TorchOps {
public:
    using Unsupported = graph::OpList<>;
    using In = graph::Call<Tensor>;

    /// `parameters` must outlive this; a network's tensor "a.weight" is read as `prefix` +
    /// "a.weight".
    explicit TorchOps(const Parameters& parameters, std::string prefix = "",
                      bool recompute = false);

    /// The outputs of `graph` for its `inputs`, of any batch size.
    std::vector<Tensor> run(const graph::Graph& graph, std::span<const Tensor> inputs) const;
    /// Those of what `function` records for inputs of these shapes, remembered in `cache`.
    std::vector<Tensor> run(graph::GraphCache& cache, const graph::Function& function,
                            std::span<const Tensor> inputs) const;

    Tensor lower(const graph::Conv2d& layer, const In& in) const;
    Tensor lower(const graph::Linear& layer, const In& in) const;
    Tensor lower(const graph::GroupNorm& layer, const In& in) const;
    Tensor lower(const graph::LayerNorm& layer, const In& in) const;
    Tensor lower(const graph::RmsNorm& layer, const In& in) const;
    Tensor lower(const graph::Attention& layer, const In& in) const;
    Tensor lower(const graph::TokenAttention& layer, const In& in) const;
    Tensor lower(const graph::Resampling& layer, const In& in) const;
    Tensor lower(const graph::Concat&, const In& in) const;
    Tensor lower(const graph::Slice& layer, const In& in) const;
    Tensor lower(const graph::Add&, const In& in) const;
    Tensor lower(const graph::Multiply&, const In& in) const;
    Tensor lower(const graph::Scale& layer, const In& in) const;
    Tensor lower(const graph::Silu&, const In& in) const;
    Tensor lower(const graph::Relu&, const In& in) const;
    Tensor lower(const graph::Tanh&, const In& in) const;
    Tensor lower(const graph::Sinusoid& layer, const In& in) const;
    Tensor lower(const graph::Fourier& layer, const In& in) const;
    Tensor lower(const graph::PixelUnshuffle& layer, const In& in) const;
    Tensor lower(const graph::PixelShuffle& layer, const In& in) const;
    Tensor lower(const graph::GlobalAverage&, const In& in) const;
    Tensor lower(const graph::Embedding& layer, const In& in) const;
    Tensor lower(const graph::AddPositions& layer, const In& in) const;
    Tensor lower(const graph::CroppedPositions& layer, const In& in) const;
    Tensor lower(const graph::GridSinusoid& layer, const In& in) const;
    Tensor lower(const graph::Gelu& layer, const In& in) const;
    Tensor lower(const graph::QuickGelu&, const In& in) const;
    Tensor lower(const graph::Geglu&, const In& in) const;
    Tensor lower(const graph::Tokens&, const In& in) const;
    Tensor lower(const graph::Image& layer, const In& in) const;
    Tensor lower(const graph::PadCorner&, const In& in) const;
    Tensor lower(const graph::Block& block, const In& in) const;

    /// Adds all parameters that are read from now on to `read`, which must outlive this.
    void record_reads(std::map<std::string, Tensor>& read) { parameters_read_ = &read; }

    /// Calls `hook` instead of computing convolutions; it may call `convolved`. Blocks are not
    /// recomputed with it.
    using ConvolutionHook = std::function<Tensor(const graph::Conv2d& layer, const Tensor& x)>;
    void replace_convolutions(ConvolutionHook hook) { hook_ = std::move(hook); }
    Tensor convolved(const graph::Conv2d& layer, const Tensor& x) const;

private:
    const Tensor& parameter(const std::string& name) const;
    /// Of a layer that autocast computes in a narrower type: narrow where there is such a copy.
    const Tensor& narrow_parameter(const std::string& name) const;
    const Tensor& read(const std::string& name, const Tensor& tensor) const;

    const Parameters& parameters_;
    std::string prefix_;
    bool recompute_;
    std::map<std::string, Tensor>* parameters_read_ = nullptr;
    ConvolutionHook hook_;
};

/// The rows [1,height*width,F] of its table [1,side*side,F] that a CroppedPositions adds.
Tensor cropped_table(const Tensor& table, const graph::CroppedPositions& layer);

/// While alive, operations on `device` compute in the types of their arguments, whatever autocast
/// says.
class WithoutAutocast {
public:
    explicit WithoutAutocast(at::Device device)
        : guard_(at::autocast::get_autocast_dispatch_key_from_device_type(device.type())) {}

private:
    c10::impl::ExcludeDispatchKeyGuard guard_;
};

/// Whether matrix products and convolutions on `device` compute in a narrower type than float32.
bool in_low_precision(at::Device device);

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
