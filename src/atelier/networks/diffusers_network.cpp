#include "atelier/networks/diffusers_network.h"

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/schema.h"
#include "atelier/networks/dit.h"
#include "atelier/networks/sd3_transformer.h"
#include "atelier/networks/sd_unet.h"
#include "atelier/networks/sd_vae.h"
#include "atelier/networks/tiny_vae.h"

namespace atelier::networks {

namespace {

template <class Network>
NamedFunctions functions_of(const core::JsonObject& config) {
    return Network::of(config).functions();
}

// A new network needs one file and one line here.
const std::map<std::string, NamedFunctions (*)(const core::JsonObject&)>& readers() {
    static const std::map<std::string, NamedFunctions (*)(const core::JsonObject&)> all{
        {"AutoencoderKL", functions_of<SdVae>},
        {"AutoencoderTiny", functions_of<TinyVae>},
        {"DiTTransformer2DModel", functions_of<Dit>},
        {"SD3Transformer2DModel", functions_of<Sd3Transformer>},
        {"Transformer2DModel", functions_of<Dit>},  // how DiT was published at first
        {"UNet2DConditionModel", functions_of<SdUnet>},
    };
    return all;
}

}  // namespace

NamedFunctions read_diffusers_network(const core::JsonObject& config,
                                      const std::string& class_name) {
    const std::string name =
        class_name.empty() ? config.text("_class_name") : config.text_or("_class_name", class_name);
    const auto found = readers().find(name);
    if (found == readers().end()) {
        core::fail("{}: is of the class \"{}\"{}; supported are {}", config.where(),
                   name.substr(0, 100), core::did_you_mean(name, diffusers_networks()),
                   fmt::join(diffusers_networks(), ", "));
    }
    return found->second(config);
}

std::vector<std::string> diffusers_networks() {
    std::vector<std::string> names;
    for (const auto& [name, reader] : readers()) names.push_back(name);
    return names;
}

std::vector<graph::Shape> smallest_inputs(const NamedFunction& function) {
    std::vector<graph::Shape> shapes;
    for (const NamedFunction::Port& port : function.inputs) {
        graph::Shape shape{1};
        for (const std::int64_t size : port.shape)
            shape.push_back(size < 0 ? function.multiple : size);
        shapes.push_back(shape);
    }
    return shapes;
}

std::vector<graph::ParameterSpec> parameters_of(const NamedFunctions& functions) {
    std::vector<graph::ParameterSpec> all;
    for (const auto& [name, function] : functions) {
        const graph::Graph recorded = graph::record(smallest_inputs(function), function.record);
        all.insert(all.end(), recorded.parameters.begin(), recorded.parameters.end());
    }
    return all;
}

}  // namespace atelier::networks
