#include "atelier/inference/named_network.h"

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/inference/computed_network.h"

namespace atelier::inference {

namespace {

using Port = networks::NamedFunction::Port;

std::string text_of_port(const Port& port) {
    std::string text = port.name + " [N";
    for (const std::int64_t size : port.shape)
        text += size < 0 ? std::string(",*") : fmt::format(",{}", size);
    return text + (port.ids > 0 ? "] int64" : "]");
}

/// The tensor as the function reads it.
Tensor checked_input(const networks::NamedFunction& function, const Port& port,
                     const Tensor& tensor, const std::string& where) {
    bool fits =
        tensor.dim() == static_cast<std::int64_t>(port.shape.size()) + 1 && tensor.numel() > 0;
    for (std::size_t i = 0; fits && i < port.shape.size(); ++i)
        fits = port.shape[i] < 0 || tensor.size(static_cast<std::int64_t>(i) + 1) == port.shape[i];
    const std::string sizes = core::to_string(tensor.sizes().vec());
    if (!fits)
        core::fail("{}\"{}\" is {}; the model expects {}", where, port.name, sizes,
                   text_of_port(port));
    const bool image = port.shape.size() == 3;
    if (image &&
        (tensor.size(2) % function.multiple != 0 || tensor.size(3) % function.multiple != 0))
        core::fail("{}\"{}\" is {}; height and width must be multiples of {}", where, port.name,
                   sizes, function.multiple);
    if (port.ids == 0) return tensor.to(at::kCPU, at::kFloat).contiguous();
    if (tensor.is_floating_point()) core::fail("{}\"{}\" must be integers", where, port.name);
    const Tensor ids = tensor.to(at::kCPU, at::kLong).contiguous();
    if (ids.min().item<std::int64_t>() < 0 || ids.max().item<std::int64_t>() >= port.ids)
        core::fail("{}\"{}\" contains values outside of 0..{}", where, port.name, port.ids - 1);
    return ids;
}

}  // namespace

std::string inputs_text(const networks::NamedFunction& function) {
    std::vector<std::string> all;
    for (const Port& port : function.inputs) all.push_back(text_of_port(port));
    return fmt::format("{}", fmt::join(all, ", "));
}

NamedNetwork::NamedNetwork(const models::DiffusersPart& part, const std::string& function,
                           const Engine& engine, const backends::Parameters& deltas)
    : function_(part.functions().at(function)) {
    models::DiffusersWeights weights = part.weights();
    backends::Parameters changes = models::unrounded_tables(part.functions(), weights);
    changes.merge(deltas, "");
    network_ =
        std::make_unique<ComputedNetwork>(std::move(weights), function_.record, engine, changes);
}

NamedNetwork::~NamedNetwork() = default;

NamedTensors NamedNetwork::run(const NamedTensors& inputs, const std::string& where) {
    std::vector<Tensor> values;
    for (const Port& port : function_.inputs) {
        const auto found = inputs.find(port.name);
        if (found == inputs.end())
            core::fail("{}there is no tensor \"{}\"; the model reads {}", where, port.name,
                       inputs_text(function_));
        values.push_back(checked_input(function_, port, found->second, where));
        if (values.back().size(0) != values.front().size(0))
            core::fail("{}\"{}\" has {} rows and \"{}\" has {}; they are of one batch", where,
                       port.name, values.back().size(0), function_.inputs.front().name,
                       values.front().size(0));
    }
    std::vector<Tensor> computed = network_->run(values);
    NamedTensors outputs;
    for (std::size_t i = 0; i < computed.size(); ++i)
        outputs[function_.outputs[i]] = std::move(computed[i]);
    return outputs;
}

}  // namespace atelier::inference
