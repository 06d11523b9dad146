#include "atelier/networks/mlp.h"

#include <cmath>

#include "atelier/core/error.h"

namespace atelier::networks {

namespace {

struct State {
    graph::Value h, embedding;
};

// c_noise = ln(sigma)/4 spans about -1.6 to 1.1; the frequencies of the sinusoid are meant for
// steps in the hundreds.
constexpr double noise_stretch = 100.0;

std::int64_t half(const MlpConfig& config) { return (config.blocks + 1) / 2; }

State enter(graph::Builder& ops, const MlpConfig& config, const Inputs& inputs) {
    graph::Value e =
        ops.sinusoid(ops.scale(inputs.c_noise, noise_stretch), {.width = config.hidden});
    e = ops.linear(e, "model.map_noise", {.out_features = config.hidden});
    if (config.classes > 0) {
        const graph::Init unit_normal{graph::Init::Kind::normal,
                                      std::sqrt(static_cast<double>(config.classes))};
        e = ops.add(
            e, ops.linear(*inputs.labels, "model.map_label",
                          {.out_features = config.hidden, .bias = false, .init = unit_normal}));
    }
    return {ops.linear(inputs.x, "model.input", {.out_features = config.hidden}), ops.silu(e)};
}

void run_block(graph::Builder& ops, const MlpConfig& config, State& state, std::int64_t index) {
    const std::string name = fmt::format("model.block{}", index);
    graph::Value y =
        ops.linear(ops.silu(state.h), name + ".layer0", {.out_features = config.hidden});
    y = ops.add(y, ops.linear(state.embedding, name + ".affine", {.out_features = config.hidden}));
    y = ops.linear(ops.silu(y), name + ".layer1",
                   {.out_features = config.hidden, .init = graph::zeros});
    state.h = ops.add(state.h, y);
}

}  // namespace

Outputs mlp(graph::Builder& ops, const MlpConfig& config, const Inputs& inputs) {
    State state = enter(ops, config, inputs);
    for (std::int64_t i = 0; i < half(config); ++i) run_block(ops, config, state, i);
    const graph::Value bottleneck = state.h;
    for (std::int64_t i = half(config); i < config.blocks; ++i) run_block(ops, config, state, i);
    return {ops.linear(ops.silu(state.h), "model.output",
                       {.out_features = config.dimensions, .init = graph::zeros}),
            bottleneck};
}

graph::Value mlp_bottleneck(graph::Builder& ops, const MlpConfig& config, const Inputs& inputs) {
    State state = enter(ops, config, inputs);
    for (std::int64_t i = 0; i < half(config); ++i) run_block(ops, config, state, i);
    return state.h;
}

Network build_mlp(const core::JsonObject& json) {
    MlpConfig config;
    config.dimensions = json.integer("dimensions", 1, 4096);
    config.classes = json.integer_or("classes", 0, 0, 1'000'000);
    config.hidden = json.integer("hidden", 2, 16384);
    config.blocks = json.integer("blocks", 1, 256);
    if (config.hidden % 2 != 0) core::fail("{}: hidden must be even", json.where());

    Network network;
    network.architecture = "mlp";
    network.data_shape = {config.dimensions};
    network.label_dim = config.classes;
    if (config.classes > 0) network.label_embedding = "model.map_label.weight";
    network.forward = [config](graph::Builder& ops, const Inputs& inputs) {
        return mlp(ops, config, inputs);
    };
    network.encode = [config](graph::Builder& ops, const Inputs& inputs) {
        return mlp_bottleneck(ops, config, inputs);
    };
    return network;
}

}  // namespace atelier::networks
