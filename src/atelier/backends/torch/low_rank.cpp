#include "atelier/backends/torch/low_rank.h"

#include <algorithm>

#include "atelier/core/error.h"

namespace atelier::backends {

namespace {

constexpr std::string_view full = ".weight", down = ".lora_down.weight", up = ".lora_up.weight";

std::string with(const std::string& layer, std::string_view ending) {
    return layer + std::string(ending);
}

}  // namespace

std::vector<graph::ParameterSpec> low_rank_specs(std::span<const graph::ParameterSpec> specs,
                                                 std::int64_t rank) {
    std::vector<graph::ParameterSpec> deltas;
    for (const graph::ParameterSpec& spec : specs) {
        if (spec.shape.size() < 2 || !spec.name.ends_with(full)) continue;
        const std::string layer = spec.name.substr(0, spec.name.size() - full.size());
        const std::int64_t out = spec.shape[0], in = graph::elements(spec.shape) / out,
                           own = std::min({rank, out, in});
        graph::Shape narrow = spec.shape, wide(spec.shape.size(), 1);
        narrow[0] = own, wide[0] = out, wide[1] = own;
        deltas.push_back({with(layer, down), narrow, {graph::Init::Kind::normal, 1.0}, in});
        deltas.push_back({with(layer, up), wide, graph::zeros, own});
    }
    return deltas;
}

bool is_low_rank(const Parameters& parameters, const std::string& layer) {
    return parameters.contains(with(layer, down));
}

Parameters merged(const Parameters& parameters) {
    if (!parameters.base()) return parameters;
    Parameters whole = merged(*parameters.base());
    for (const auto& [name, tensor] : parameters.tensors()) {
        if (name.ends_with(up)) continue;
        if (!name.ends_with(down)) {
            whole.set(name, tensor);
            continue;
        }
        const std::string layer = name.substr(0, name.size() - down.size());
        const Tensor& under = whole.at(with(layer, full));
        const Tensor delta =
            at::matmul(parameters.at(with(layer, up)).flatten(1), tensor.flatten(1));
        whole.set(with(layer, full), under.to(at::kFloat) + delta.view(under.sizes()));
    }
    return whole;
}

}  // namespace atelier::backends
