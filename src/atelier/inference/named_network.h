#pragma once

#include <map>
#include <memory>
#include <string>

#include "atelier/inference/engine.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::inference {

class ComputedNetwork;

using NamedTensors = std::map<std::string, Tensor>;

/// "x [N,4,*,*], t [N]": the inputs of a function, for messages and help.
std::string inputs_text(const networks::NamedFunction& function);

/// One function of a network in diffusers' form, with its weights on an engine. Not thread-safe.
class NamedNetwork {
public:
    /// Throws core::Error naming the file where the weights do not fit the config.
    NamedNetwork(const models::DiffusersPart& part, const std::string& function,
                 const Engine& engine, const backends::Parameters& deltas = {});
    ~NamedNetwork();

    const networks::NamedFunction& function() const { return function_; }

    /// Reads the function's inputs among `inputs`, [N,...] each, and returns its outputs, float32
    /// on the CPU. Throws core::Error naming the input that is missing or does not fit; `where`
    /// begins messages.
    NamedTensors run(const NamedTensors& inputs, const std::string& where = "");

private:
    networks::NamedFunction function_;
    std::unique_ptr<ComputedNetwork> network_;
};

}  // namespace atelier::inference
