#pragma once

#include <span>

#include "atelier/backends/torch/parameters.h"
#include "atelier/backends/torch/torch_ops.h"
#include "atelier/diffusion/noise_schedule.h"
#include "atelier/networks/network.h"

namespace atelier::diffusion {

/// What samples are conditioned on: labels [N,L] float32 (one-hot classes, or text embeddings;
/// undefined if none), augmentation labels [N,A] float32 (undefined if none), and, instead of
/// labels, token ids [N,T] int64 for networks with their own text tower.
struct Condition {
    Tensor labels, augment{}, ids{};

    /// The conditions of samples first..first+count-1.
    Condition rows(std::int64_t first, std::int64_t count) const;
};

/// One-hot labels [N,classes] float32; undefined if `classes` is 0. Throws core::Error on a
/// class out of range.
Condition one_hot(std::span<const std::int64_t> labels, std::int64_t classes,
                  at::Device device = at::kCPU);

/// Interface of everything that denoises: teachers, fake scores and students.
class Denoiser {
public:
    virtual ~Denoiser() = default;

    /// Estimates the clean samples: `x_t` [N,...] at noise levels `sigma` [N], float32 -> the shape
    /// of x_t, float32.
    virtual Tensor denoise(const Tensor& x_t, const Tensor& sigma,
                           const Condition& condition) const = 0;
};

/// Throws core::Error if a conditional network gets no labels.
void check_condition(const networks::Network& network, const Condition& condition);

/// A network's inputs as tensors, and its outputs.
using NetworkInputs = networks::InputsOf<Tensor>;
struct NetworkOutputs {
    Tensor raw, bottleneck;
};

/// The network's inputs for `x_t` [N,...]: c_in x_t, c_noise and the labels. Throws core::Error if
/// a conditional network gets no labels.
NetworkInputs network_inputs(const networks::Network& network, const Tensor& x_t,
                             const Preconditioning& with, const Condition& condition);

/// One evaluation of `network`, or of its encoder alone, by `backend`.
NetworkOutputs evaluate(const networks::Network& network, const NetworkInputs& inputs,
                        const backends::TorchOps& backend);
Tensor evaluate_encoder(const networks::Network& network, const NetworkInputs& inputs,
                        const backends::TorchOps& backend);

/// A network with the preconditioning of its noise schedule. Holds references: network and
/// parameters must outlive it.
class EdmDenoiser : public Denoiser {
public:
    EdmDenoiser(const networks::Network& network, const backends::Parameters& parameters,
                const NoiseSchedule& noise, const backends::Compute& compute = {});

    Tensor denoise(const Tensor& x_t, const Tensor& sigma,
                   const Condition& condition) const override;

    /// The estimate and the bottleneck features, in one evaluation.
    struct Output {
        Tensor estimate, bottleneck;
    };
    Output denoise_and_encode(const Tensor& x_t, const Tensor& sigma,
                              const Condition& condition) const;

    /// Features of the network's bottleneck, [N,C,h,w] or [N,F], float32.
    Tensor encode(const Tensor& x_t, const Tensor& sigma, const Condition& condition) const;

    const networks::Network& network() const { return network_; }

private:
    const networks::Network& network_;
    const backends::Parameters& parameters_;
    NoiseSchedule noise_;
    backends::Compute compute_;
};

}  // namespace atelier::diffusion
