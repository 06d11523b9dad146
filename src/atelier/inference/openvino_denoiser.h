#pragma once

#include "atelier/inference/engine.h"
#include "atelier/inference/openvino_network.h"

namespace atelier::inference {

/// A model at any noise level. The preconditioning around the network is float32 whatever the network's precision. Holds a reference: the model
/// must outlive it. One thread at a time.
class OpenVinoDenoiser : public diffusion::Denoiser {
public:
    OpenVinoDenoiser(const models::Model& model, Engine::Precision precision);

    Tensor denoise(const Tensor& x_t, const Tensor& sigma, const diffusion::Condition& condition) const override;

private:
    const models::Model& model_;
    mutable OpenVinoNetwork network_;
};

/// A model at its highest noise level alone: all that follows from the level, and from a class where that pays, is computed when the graph is
/// written. Holds a reference: the model must outlive it. One thread at a time.
class OpenVinoOneStep : public OneStep {
public:
    /// `classes`: those that will be asked for.
    OpenVinoOneStep(const models::Model& model, std::vector<std::int64_t> classes, Engine::Precision precision);

    Tensor draw(const Tensor& z, std::span<const std::int64_t> classes) const override;

private:
    std::int32_t row_of(std::int64_t class_id) const;

    const models::Model& model_;
    std::vector<std::int64_t> classes_;  // increasing: a row of the graph's tables each
    float z_in_, z_skip_, c_out_;        // what the network is given of z; the sample is z_skip z + c_out F
    mutable OpenVinoNetwork network_;
};

}  // namespace atelier::inference
