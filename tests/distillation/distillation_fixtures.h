#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "atelier/distillation/distribution_matching.h"
#include "atelier/networks/network.h"

/// Fixtures of the distillation tests: a small network and a stage on synthetic points.
namespace atelier::distillation {

inline networks::Network small_network() {
    static const nlohmann::json config{
        {"architecture", "mlp"}, {"dimensions", 2}, {"classes", 3}, {"hidden", 16}, {"blocks", 2}};
    return networks::make_network(core::JsonObject(config, "test"));
}

inline backends::Parameters random_parameters(const networks::Network& network,
                                              std::uint64_t seed) {
    backends::Parameters parameters =
        backends::initialise(networks::trace(network).parameters, seed);
    // Initial output layers are zero; these tests need a network with non-zero outputs.
    core::RandomStream stream(seed, "test/weights");
    for (const auto& [name, tensor] : parameters.tensors())
        tensor.add_(0.1 * diffusion::normal_tensor(stream, tensor.sizes()));
    return parameters;
}

/// A matching stage on three Gaussian clusters, with pairs of noise and half that noise.
class Workbench {
public:
    explicit Workbench(MatchingSettings settings, bool with_head = false)
        : student(random_parameters(network, 1)),
          fake(random_parameters(network, 2)),
          teacher_weights(random_parameters(network, 3)),
          teacher(network, teacher_weights, {}) {
        if (with_head) fake.merge(init_head(network, 4), "");
        settings.batch = 8;
        student.require_gradients(true);
        fake.require_gradients(true);
        stage.emplace(
            MatchingInputs{network, student, network, fake, teacher, conditions::Prior{{1, 1, 1}},
                           real, pairs, pseudo_huber},
            settings,
            StageContext{.noise = diffusion::NoiseSchedule::edm(0.5, 0.01, 10), .stream = "test"});
    }

    static LabelledBatch real(std::int64_t step) {
        core::RandomStream stream(7, "test/real", static_cast<std::uint64_t>(step));
        return {diffusion::normal_tensor(stream, {8, 2}), {0, 1, 2, 0, 1, 2, 0, 1}};
    }

    static PairBatch pairs(std::int64_t step) {
        core::RandomStream stream(8, "test/pairs", static_cast<std::uint64_t>(step));
        const Tensor noise = diffusion::normal_tensor(stream, {8, 2});
        return {noise, 0.5 * noise, {0, 1, 2, 0, 1, 2, 0, 1}};
    }

    networks::Network network = small_network();
    backends::Parameters student, fake, teacher_weights;
    diffusion::EdmDenoiser teacher;
    std::optional<DistributionMatching> stage;
};

/// Gradients of a loss with respect to a learner's parameters; undefined where the loss does not
/// depend on one.
inline std::vector<Tensor> gradients_of(const Loss& loss, const backends::Parameters& parameters) {
    return torch::autograd::grad({loss.value}, parameters.list(), {}, std::nullopt, false,
                                 /*allow_unused=*/true);
}

inline bool any_defined(const std::vector<Tensor>& gradients) {
    return std::ranges::any_of(
        gradients, [](const Tensor& g) { return g.defined() && g.abs().max().item<double>() > 0; });
}

}  // namespace atelier::distillation
