#pragma once

#include <memory>
#include <string>

#include "atelier/inference/device.h"
#include "atelier/models/model_directory.h"

namespace atelier::inference {

/// The runtime, device and precision of matrix products and convolutions.
struct Engine {
    /// native: our own kernels, in float32, on the CPU.
    enum class Kind { torch, openvino, native };
    /// int8: for quantised layers; automatic: int8 for quantised models, else fp32.
    enum class Precision { fp32, bf16, int8, automatic };
    Kind kind = Kind::torch;
    Precision precision = Precision::fp32;
    at::Device device = at::kCPU;
    bool automatic = false;  // engine_for may change `kind`

    /// LibTorch computes with the loaded weights, the other engines with rearranged copies.
    models::Weights weights() const {
        return kind == Kind::torch ? models::Weights::shared : models::Weights::mapped;
    }
    /// The precision in which LibTorch computes.
    backends::Compute compute() const {
        return {precision == Precision::bf16 ? std::optional(at::kBFloat16) : std::nullopt};
    }
};

/// Parses an engine: `kind` is "native", "openvino", "torch" or "auto" (native or OpenVINO on the
/// CPU, see engine_for; LibTorch elsewhere), `precision` "fp32", "bf16", "int8" or "auto", `device`
/// "cpu", "cuda" or "cuda:N". Throws core::UsageError on anything else and on unsupported
/// combinations: native or OpenVINO on other devices than the CPU, native in bf16, native or
/// LibTorch in int8.
Engine engine_of(const std::string& kind, const std::string& precision, const std::string& device);

/// Resolves the engine's automatic settings for `model`, of which only the config is used. An
/// automatic kind becomes native when that pays (native_network.h) and the computation is in
/// float32 (which bf16 also means on a CPU without bfloat16), else OpenVINO. Throws
/// core::UsageError when int8 is requested for a model that is not quantised.
Engine engine_for(Engine engine, const models::Model& model);

std::string name_of(Engine::Kind kind);
std::string name_of(Engine::Precision precision);

/// A denoiser on `engine`. `model` must be on the engine's device and outlive the result.
std::unique_ptr<diffusion::Denoiser> open_denoiser(const models::Model& model,
                                                   const Engine& engine);

/// A model that samples in one step, from its highest noise level.
class OneStep {
public:
    virtual ~OneStep() = default;

    /// `z` [N,...] standard normal, float32, and N classes (ignored by unconditional networks) ->
    /// samples of z's shape, float32 on the CPU.
    virtual Tensor draw(const Tensor& z, std::span<const std::int64_t> classes) const = 0;
};

/// A one-step sampler on `engine`. `model` must outlive the result. `classes`: those that may be
/// requested; all when empty.
std::unique_ptr<OneStep> open_one_step(const models::Model& model, const Engine& engine,
                                       std::vector<std::int64_t> classes = {});

}  // namespace atelier::inference
