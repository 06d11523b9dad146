#include "atelier/distillation/divergences.h"

#include <map>

#include "atelier/core/error.h"

namespace atelier::distillation {

namespace {

using Weight = Tensor (*)(const Tensor& ratio);

// A new divergence is one line here.
const std::map<std::string, Weight>& weights() {
    static const std::map<std::string, Weight> all{
        {"reverse_kl", [](const Tensor& r) { return at::ones_like(r); }},
        {"forward_kl", [](const Tensor& r) { return r.clone(); }},
        {"jensen_shannon", [](const Tensor& r) { return r / (1 + r); }},
        {"squared_hellinger", [](const Tensor& r) { return r.sqrt(); }},
        {"softened_reverse_kl", [](const Tensor& r) { return 1 / (1 + r); }},
        {"neyman", [](const Tensor& r) { return 1 / r; }},
        {"jeffreys", [](const Tensor& r) { return 1 + r; }},
    };
    return all;
}

}  // namespace

std::vector<std::string> divergences() {
    std::vector<std::string> names;
    for (const auto& [name, weight] : weights()) names.push_back(name);
    return names;
}

Tensor divergence_weight(const std::string& name, const Tensor& logits) {
    const auto found = weights().find(name);
    if (found == weights().end()) core::fail("there is no divergence \"{}\"", name);
    const Tensor h = found->second(logits.detach().clamp(-10, 10).exp());
    return h / h.mean();
}

}  // namespace atelier::distillation
