#pragma once

#include <memory>
#include <string>

#include "atelier/inference/device.h"
#include "atelier/models/model_directory.h"

namespace atelier::inference {

/// Who computes, and in which precision matrix products and convolutions are.
struct Engine {
    enum class Kind { torch, openvino, native };  // native: by this program's own loops, in float32, on the CPU
    enum class Precision { fp32, bf16, int8, automatic };  // int8: of quantised layers; automatic: int8 for quantised models, else fp32
    Kind kind = Kind::torch;
    Precision precision = Precision::fp32;
    at::Device device = at::kCPU;
    bool automatic = false;  // `kind` is what engine_for may change

    /// LibTorch computes with the weights that were read, the others arrange copies.
    models::Weights weights() const { return kind == Kind::torch ? models::Weights::shared : models::Weights::mapped; }
    /// As LibTorch computes it.
    ops::Compute compute() const { return {precision == Precision::bf16 ? std::optional(at::kBFloat16) : std::nullopt}; }
};

/// Reads "native", "openvino", "torch" or "auto" (on the CPU native or OpenVINO, see engine_for; LibTorch elsewhere), "fp32", "bf16", "int8" or "auto", "cpu", "cuda" or "cuda:N".
/// Throws core::UsageError on anything else, when native or OpenVINO are asked for another device than the CPU, native for bf16, and native and LibTorch for int8.
Engine engine_of(const std::string& kind, const std::string& precision, const std::string& device);

/// `engine` with the kind and the precision that it has for `model`, of which only the config is looked at. An automatic one is native where that pays (native_network.h) and float32 is what is computed, which is
/// also what bf16 means on a CPU without bfloat16; else it is OpenVINO. Throws core::UsageError when int8 is asked of a model
/// that is not quantised.
Engine engine_for(Engine engine, const models::Model& model);

std::string name_of(Engine::Kind kind);
std::string name_of(Engine::Precision precision);

/// `model`, which must outlive the result, as a denoiser on that engine. The model lies on the engine's device.
std::unique_ptr<diffusion::Denoiser> open_denoiser(const models::Model& model, const Engine& engine);

/// A model that samples in one step, from its highest noise level.
class OneStep {
public:
    virtual ~OneStep() = default;

    /// `z` [N,...] standard normal, float32, and N classes (an unconditional network does not look at them) -> samples of z's shape, float32 on
    /// the CPU.
    virtual Tensor draw(const Tensor& z, std::span<const std::int64_t> classes) const = 0;
};

/// `model`, which must outlive the result, as a one-step sampler on that engine. `classes`: those that will be asked for; without, all.
std::unique_ptr<OneStep> open_one_step(const models::Model& model, const Engine& engine, std::vector<std::int64_t> classes = {});

}  // namespace atelier::inference
