#include "atelier/training/optimizer.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"

namespace atelier::training {

namespace {

ops::Parameters zeros_like(const ops::Parameters& parameters) {
    ops::Parameters zeros;
    for (const auto& [name, tensor] : parameters.tensors()) zeros.set(name, at::zeros_like(tensor));
    return zeros;
}

/// Those that are trained.
std::vector<Tensor> trained(const ops::Parameters& parameters) {
    std::vector<Tensor> list;
    for (const auto& [name, tensor] : parameters.tensors()) {
        if (!ops::is_fixed(name)) list.push_back(tensor);
    }
    return list;
}

/// An undefined gradient (of a parameter that this loss does not reach) becomes zeros, so that every state advances alike; others are laid
/// out as the parameter is, which the fused update takes for granted.
Tensor fitted(const Tensor& gradient, const Tensor& parameter) {
    if (!gradient.defined()) return at::zeros_like(parameter);
    if (gradient.strides() == parameter.strides()) return gradient;
    return at::empty_like(parameter).copy_(gradient);
}

}  // namespace

double scheduled_rate(const distillation::Optimization& settings, std::int64_t update, std::int64_t total) {
    const auto at = static_cast<double>(update);
    const double warmed = at + 1 - static_cast<double>(update < settings.warm_from ? 0 : settings.warm_from);
    const double warm = settings.warmup > 0 ? std::min(1.0, warmed / static_cast<double>(settings.warmup)) : 1.0;
    const double start = settings.decay_from * static_cast<double>(total);
    double decay = 1.0;
    if (at > start) decay = 1 - (1 - settings.final_share) * (at - start) / std::max(1.0, static_cast<double>(total) - start);
    return settings.lr * warm * decay;
}

Optimizer::Optimizer(ops::Parameters& parameters, distillation::Optimization settings, std::int64_t total_updates)
    : parameters_(parameters), settings_(settings), total_(total_updates), first_(zeros_like(parameters)), second_(zeros_like(parameters)) {
    if (settings_.ema_decay > 0) average_ = parameters_.clone();
    for (const double decay : settings_.more_ema_decays) more_[fmt::format("{}", decay)] = parameters_.clone();
    updates_ = at::zeros({}, at::kLong);
    for_kernel_ = at::zeros({}, parameters_.list().front().options().dtype(at::kFloat));
}

std::int64_t Optimizer::updates_done() const { return updates_.item<std::int64_t>(); }

double Optimizer::update(std::vector<Tensor> gradients, double scale) {
    at::NoGradGuard no_gradients;
    const std::vector<Tensor> parameters = trained(parameters_);
    std::vector<Tensor> slopes;
    std::size_t place = 0;
    for (const auto& [name, tensor] : parameters_.tensors()) {
        const Tensor gradient = std::move(gradients[place++]);  // released here, so that of each there is one copy
        if (!ops::is_fixed(name)) slopes.push_back(fitted(gradient, tensor));
    }
    const double norm = at::stack(at::_foreach_norm(slopes, 2)).norm().item<double>() / scale;
    if (!std::isfinite(norm)) return norm;
    const double factor = (settings_.clip > 0 && norm > settings_.clip ? settings_.clip / norm : 1.0) / scale;
    if (factor != 1.0) {
        // Not in place: autograd may hand out one tensor as the gradient of several parameters.
        for (Tensor& slope : slopes) slope = slope * factor;
    }

    const std::int64_t before = updates_done();
    updates_.fill_(before + 1);
    for_kernel_.fill_(static_cast<double>(before + 1));
    const std::vector<Tensor> steps(parameters.size(), for_kernel_);
    at::_fused_adamw_(parameters, slopes, trained(first_), trained(second_), {}, steps, scheduled_rate(settings_, before, total_),
                      settings_.beta1, settings_.beta2, settings_.weight_decay, 1e-8, false, false, std::nullopt, std::nullopt);
    if (settings_.ema_decay > 0) follow(average_, settings_.ema_decay, before + 1);
    for (const double decay : settings_.more_ema_decays) follow(more_.at(fmt::format("{}", decay)), decay, before + 1);
    return norm;
}

void Optimizer::follow(ops::Parameters& average, double decay, std::int64_t done) const {
    const auto updates = static_cast<double>(done);
    const double keep = std::min(decay, (1 + updates) / (10 + updates));  // young averages follow closely
    at::_foreach_lerp_(trained(average), trained(parameters_), 1 - keep);
}

ops::Parameters Optimizer::state() const {
    ops::Parameters all;
    all.merge(parameters_, "weights/");
    all.merge(average_, "ema/");
    for (const auto& [decay, average] : more_) all.merge(average, "ema-" + decay + "/");
    all.merge(first_, "first_moment/");
    all.merge(second_, "second_moment/");
    all.set("updates", updates_);
    return all;
}

void Optimizer::restore(const ops::Parameters& saved) {
    ops::Parameters mine = state();
    for (const auto& [name, tensor] : mine.tensors()) {
        if (!saved.contains(name) || saved.at(name).sizes() != tensor.sizes()) {
            core::fail("the checkpoint lacks \"{}\" or holds it with another shape; it belongs to another network or optimiser", name);
        }
    }
    for (const auto& [name, tensor] : saved.tensors()) {
        if (!mine.contains(name)) core::fail("the checkpoint holds \"{}\" besides; it belongs to another network or optimiser", name);
    }
    mine.copy_from(saved);
}

}  // namespace atelier::training
