#pragma once

#include "atelier/inference/compiled_network.h"
#include "atelier/inference/engine.h"

namespace atelier::inference {

/// A denoiser for any noise level. The network's inputs are x, c_noise and, when it is conditional,
/// labels; the preconditioning around it is float32 whatever its precision. Holds a reference: the
/// model must outlive it. Not thread-safe.
class CompiledDenoiser : public diffusion::Denoiser {
public:
    CompiledDenoiser(const models::Model& model, std::unique_ptr<CompiledNetwork> network)
        : model_(model), network_(std::move(network)) {}

    Tensor denoise(const Tensor& x_t, const Tensor& sigma,
                   const diffusion::Condition& condition) const override;

private:
    const models::Model& model_;
    std::unique_ptr<CompiledNetwork> network_;
};

/// A one-step sampler, for the model's highest noise level only. The network's inputs are x and,
/// when it is conditional, rows of `classes`. Holds a reference: the model must outlive it. Not
/// thread-safe.
class CompiledOneStep : public OneStep {
public:
    /// `classes`: those that may be requested, in increasing order.
    CompiledOneStep(const models::Model& model, std::vector<std::int64_t> classes,
                    std::unique_ptr<CompiledNetwork> network);

    Tensor draw(const Tensor& z, std::span<const std::int64_t> classes) const override;

private:
    std::int32_t row_of(std::int64_t class_id) const;

    const models::Model& model_;
    std::vector<std::int64_t> classes_;  // one row of the network's constant embeddings each
    // The network's input is z_in z, the sample z_skip z + c_out F.
    float z_in_, z_skip_, c_out_;
    std::unique_ptr<CompiledNetwork> network_;
};

}  // namespace atelier::inference
