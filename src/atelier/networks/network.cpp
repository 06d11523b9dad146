#include "atelier/networks/network.h"

#include <map>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/schema.h"
#include "atelier/graph/shape_ops.h"
#include "atelier/networks/adm_unet.h"
#include "atelier/networks/mlp.h"
#include "atelier/networks/sd_unet.h"
#include "atelier/networks/song_unet.h"

namespace atelier::networks {

namespace {

using Builder = Network (*)(const core::JsonObject&);

// A new network needs one file and one line here.
const std::map<std::string, Builder>& builders() {
    static const std::map<std::string, Builder> all{
        {"adm_unet", build_adm_unet},
        {"mlp", build_mlp},
        {"sd_unet", build_sd_unet},
        {"song_unet", build_song_unet},
    };
    return all;
}

Inputs symbolic_inputs(const Network& network) {
    graph::Shape x{1};
    x.insert(x.end(), network.data_shape.begin(), network.data_shape.end());
    Inputs inputs{x, graph::Shape{1}, std::nullopt};
    if (network.label_dim > 0) inputs.labels = network.label_shape(1);
    if (network.augment_dim > 0) inputs.augment = graph::Shape{1, network.augment_dim};
    return inputs;
}

void add_text(Network& network, const core::JsonObject& config) {
    network.text = ClipText::of(config);
    if (network.text->width != network.label_dim) {
        core::fail(
            "{}: \"hidden_size\" is {}, but the network reads text states of width {} "
            "(\"classes\")",
            config.where(), network.text->width, network.label_dim);
    }
}

}  // namespace

std::vector<std::string> architectures() {
    std::vector<std::string> names;
    for (const auto& [name, builder] : builders()) names.push_back(name);
    return names;
}

Network make_network(const core::JsonObject& config) {
    const std::string architecture = config.text("architecture");
    const auto found = builders().find(architecture);
    if (found == builders().end()) {
        core::fail("{}: architecture \"{}\" is unknown{}; known are {}", config.where(),
                   architecture, core::did_you_mean(architecture, architectures()),
                   fmt::join(architectures(), ", "));
    }
    Network network = found->second(config);
    if (config.has("text")) add_text(network, config.object("text"));
    return network;
}

graph::ShapeOps trace(const Network& network, const graph::ActivationPolicy& policy,
                      TraceScope scope) {
    graph::ShapeOps shapes(policy);
    if (scope == TraceScope::encoder_only) {
        network.encode(shapes, symbolic_inputs(network));
        return shapes;
    }
    network.forward(shapes, symbolic_inputs(network));
    if (network.text) network.text->forward(shapes, graph::Shape{1, network.text->positions});
    return shapes;
}

graph::Shape bottleneck_shape(const Network& network) {
    graph::ShapeOps shapes;
    return shapes.shape(network.encode(shapes, symbolic_inputs(network)));
}

}  // namespace atelier::networks
