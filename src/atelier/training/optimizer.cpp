#include "atelier/training/optimizer.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"

namespace atelier::training {

namespace {

backends::Parameters zeros_like(const backends::Parameters& parameters) {
    backends::Parameters zeros;
    for (const auto& [name, tensor] : parameters.tensors()) zeros.set(name, at::zeros_like(tensor));
    return zeros;
}

/// The trained tensors.
std::vector<Tensor> trained(const backends::Parameters& parameters) {
    std::vector<Tensor> list;
    for (const auto& [name, tensor] : parameters.tensors()) {
        if (!backends::is_buffer(name)) list.push_back(tensor);
    }
    return list;
}

/// Zeros for an undefined gradient (of a parameter that the loss does not depend on), so that all
/// states advance alike; otherwise the gradient in the parameter's memory layout, which the fused
/// update requires.
Tensor aligned(const Tensor& gradient, const Tensor& parameter) {
    if (!gradient.defined()) return at::zeros_like(parameter);
    if (gradient.strides() == parameter.strides()) return gradient;
    return at::empty_like(parameter).copy_(gradient);
}

}  // namespace

double scheduled_rate(const distillation::Optimization& settings, std::int64_t update,
                      std::int64_t total) {
    const auto at = static_cast<double>(update);
    const double warmed =
        at + 1 - static_cast<double>(update < settings.warm_from ? 0 : settings.warm_from);
    const double warm =
        settings.warmup > 0 ? std::min(1.0, warmed / static_cast<double>(settings.warmup)) : 1.0;
    const double start = settings.decay_from * static_cast<double>(total);
    double decay = 1.0;
    if (at > start)
        decay = 1 - (1 - settings.final_share) * (at - start) /
                        std::max(1.0, static_cast<double>(total) - start);
    return settings.lr * warm * decay;
}

Optimizer::Optimizer(backends::Parameters& parameters, distillation::Optimization settings,
                     std::int64_t total_updates)
    : parameters_(parameters),
      settings_(settings),
      total_(total_updates),
      first_moment_(zeros_like(parameters)),
      second_moment_(zeros_like(parameters)) {
    if (settings_.ema_decay > 0) average_ = parameters_.clone();
    for (const double decay : settings_.more_ema_decays)
        more_[fmt::format("{}", decay)] = parameters_.clone();
    updates_ = at::zeros({}, at::kLong);
    updates_float_ = at::zeros({}, parameters_.list().front().options().dtype(at::kFloat));
}

std::int64_t Optimizer::updates_done() const { return updates_.item<std::int64_t>(); }

double Optimizer::update(std::vector<Tensor> gradients, double scale) {
    at::NoGradGuard no_gradients;
    const std::vector<Tensor> parameters = trained(parameters_);
    std::vector<Tensor> trained_gradients;
    std::size_t index = 0;
    for (const auto& [name, tensor] : parameters_.tensors()) {
        const Tensor gradient =
            std::move(gradients[index++]);  // released here, so that only one copy of each exists
        if (!backends::is_buffer(name)) trained_gradients.push_back(aligned(gradient, tensor));
    }
    const double norm =
        at::stack(at::_foreach_norm(trained_gradients, 2)).norm().item<double>() / scale;
    if (!std::isfinite(norm)) return norm;
    const double factor =
        (settings_.clip > 0 && norm > settings_.clip ? settings_.clip / norm : 1.0) / scale;
    if (factor != 1.0) {
        // Not in place: autograd may return one tensor as the gradient of several parameters.
        for (Tensor& gradient : trained_gradients) gradient = gradient * factor;
    }

    const std::int64_t done = updates_done();
    updates_.fill_(done + 1);
    updates_float_.fill_(static_cast<double>(done + 1));
    const std::vector<Tensor> steps(parameters.size(), updates_float_);
    at::_fused_adamw_(parameters, trained_gradients, trained(first_moment_),
                      trained(second_moment_), {}, steps, scheduled_rate(settings_, done, total_),
                      settings_.beta1, settings_.beta2, settings_.weight_decay, 1e-8, false, false,
                      std::nullopt, std::nullopt);
    if (settings_.ema_decay > 0) update_average(average_, settings_.ema_decay, done + 1);
    for (const double decay : settings_.more_ema_decays)
        update_average(more_.at(fmt::format("{}", decay)), decay, done + 1);
    return norm;
}

void Optimizer::update_average(backends::Parameters& average, double decay,
                               std::int64_t updates) const {
    const auto n = static_cast<double>(updates);
    const double keep = std::min(decay, (1 + n) / (10 + n));  // a lower decay at the beginning
    at::_foreach_lerp_(trained(average), trained(parameters_), 1 - keep);
}

backends::Parameters Optimizer::state() const {
    backends::Parameters all;
    all.merge(parameters_, "weights/");
    all.merge(average_, "ema/");
    for (const auto& [decay, average] : more_) all.merge(average, "ema-" + decay + "/");
    all.merge(first_moment_, "first_moment/");
    all.merge(second_moment_, "second_moment/");
    all.set("updates", updates_);
    return all;
}

void Optimizer::restore(const backends::Parameters& saved) {
    backends::Parameters own = state();
    for (const auto& [name, tensor] : own.tensors()) {
        if (!saved.contains(name) || saved.at(name).sizes() != tensor.sizes()) {
            core::fail(
                "the checkpoint lacks \"{}\" or holds it with another shape; it belongs to another "
                "network or optimiser",
                name);
        }
    }
    for (const auto& [name, tensor] : saved.tensors()) {
        if (!own.contains(name))
            core::fail(
                "the checkpoint also holds \"{}\"; it belongs to another network or optimiser",
                name);
    }
    own.copy_from(saved);
}

}  // namespace atelier::training
