#pragma once

#include "atelier/inference/engine.h"
#include "atelier/inference/compiled_network.h"

namespace atelier::inference {

/// A model at any noise level, on a network of inputs x, c_noise and, where it is conditional, labels. The preconditioning around the network is float32 whatever the network's
/// precision. Holds a reference: the model must outlive it. One thread at a time.
class CompiledDenoiser : public diffusion::Denoiser {
public:
    CompiledDenoiser(const models::Model& model, std::unique_ptr<CompiledNetwork> network) : model_(model), network_(std::move(network)) {}

    Tensor denoise(const Tensor& x_t, const Tensor& sigma, const diffusion::Condition& condition) const override;

private:
    const models::Model& model_;
    std::unique_ptr<CompiledNetwork> network_;
};

/// A model at its highest noise level alone, on a network of inputs x and, where it is conditional, rows of `classes`. Holds a reference: the model must outlive it. One thread at a
/// time.
class CompiledOneStep : public OneStep {
public:
    /// `classes`: those that will be asked for, in increasing order.
    CompiledOneStep(const models::Model& model, std::vector<std::int64_t> classes, std::unique_ptr<CompiledNetwork> network);

    Tensor draw(const Tensor& z, std::span<const std::int64_t> classes) const override;

private:
    std::int32_t row_of(std::int64_t class_id) const;

    const models::Model& model_;
    std::vector<std::int64_t> classes_;  // a row of the network's tables each
    float z_in_, z_skip_, c_out_;        // what the network is given of z; the sample is z_skip z + c_out F
    std::unique_ptr<CompiledNetwork> network_;
};

}  // namespace atelier::inference
