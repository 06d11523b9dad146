#pragma once

#include <map>

#include "atelier/core/json_file.h"
#include "atelier/graph/builder.h"

namespace atelier::networks {

/// A function of batched tensors with names that a network computes.
struct NamedFunction {
    struct Port {
        std::string name;
        graph::Shape shape;    // of one sample; -1: any size
        std::int64_t ids = 0;  // if not 0: int64 from 0 to ids - 1 instead of float32
    };
    std::vector<Port> inputs;
    std::vector<std::string> outputs;
    std::int64_t multiple = 1;  // of which heights and widths of any size must be multiples
    /// Parameters [1,height*width,F] that are sinusoids unless a file has others.
    std::map<std::string, graph::GridSinusoid> tables{};
    graph::Function record;
};

/// The functions of a network: "denoise", or an autoencoder's "decode" and "encode".
using NamedFunctions = std::map<std::string, NamedFunction>;

/// Reads a config.json of diffusers', whose `_class_name`, or `class_name` where it has none,
/// selects the network. Throws core::Error naming file and key, also on options that would change
/// the result and are not supported.
NamedFunctions read_diffusers_network(const core::JsonObject& config,
                                      const std::string& class_name = "");

/// The supported values of `_class_name`.
std::vector<std::string> diffusers_networks();

/// The parameters that `functions` read.
std::vector<graph::ParameterSpec> parameters_of(const NamedFunctions& functions);

/// Shapes of one sample of each input, any sizes as small as possible: what a function is recorded
/// with where only its parameters or its work are of interest.
std::vector<graph::Shape> smallest_inputs(const NamedFunction& function);

}  // namespace atelier::networks
