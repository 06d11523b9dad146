#include "atelier/training/optimizer.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "atelier/backends/torch/gpu_kernels.h"
#include "atelier/core/error.h"
#include "atelier/parallel/flat.h"

namespace atelier::training {

namespace {

backends::Parameters zeros_like(const backends::Parameters& parameters) {
    backends::Parameters zeros;
    for (const auto& [name, tensor] : parameters.tensors()) zeros.set(name, at::zeros_like(tensor));
    return zeros;
}

std::vector<std::int64_t> sizes_of(const backends::Parameters& parameters) {
    std::vector<std::int64_t> sizes;
    for (const auto& [name, tensor] : parameters.tensors()) sizes.push_back(tensor.numel());
    return sizes;
}

std::int64_t bytes_of(const backends::Parameters& parameters) {
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] : parameters.tensors())
        bytes += static_cast<std::int64_t>(tensor.nbytes());
    return bytes;
}

const backends::Parameters& as_kept(const backends::Parameters& kept) { return kept; }

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

/// The global norm, a float32 scalar.
Tensor norm_of(const std::vector<Tensor>& gradients) {
    return at::stack(at::_foreach_norm(gradients, 2)).norm();
}

/// Copies tensors that occur twice, so that each can be changed in place: autograd may return one
/// tensor as the gradient of several parameters.
void unshare(std::vector<Tensor>& gradients) {
    std::set<const void*> seen;
    for (Tensor& gradient : gradients) {
        if (gradient.numel() > 0 && !seen.insert(gradient.const_data_ptr()).second)
            gradient = gradient.clone();
    }
}

/// How much of an average is kept in its update number `updates`, from 1: less at the beginning.
double kept_share(double decay, std::int64_t updates) {
    const auto n = static_cast<double>(updates);
    return std::min(decay, (1 + n) / (10 + n));
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
                     std::int64_t total_updates, parallel::Ranks& ranks)
    : parameters_(parameters),
      settings_(settings),
      total_(total_updates),
      shares_(ranks, sizes_of(parameters)),
      first_moment_(zeros_like(kept())),
      second_moment_(zeros_like(kept())) {
    if (settings_.ema_decay > 0) average_ = kept().clone();
    for (const double decay : settings_.more_ema_decays)
        more_[fmt::format("{}", decay)] = kept().clone();
    updates_ = at::zeros({}, at::kLong);
    updates_float_ = at::zeros({}, parameters_.list().front().options().dtype(at::kFloat));
    rate_ = at::zeros_like(updates_float_);
}

std::int64_t Optimizer::updates_done() const { return updates_.item<std::int64_t>(); }

std::vector<Tensor> Optimizer::trained_gradients(std::vector<Tensor> gradients) const {
    std::vector<Tensor> chosen;
    std::size_t index = 0;
    for (const auto& [name, tensor] : parameters_.tensors()) {
        const Tensor gradient =
            std::move(gradients[index++]);  // released here, so that only one copy of each exists
        if (!backends::is_buffer(name)) chosen.push_back(aligned(gradient, tensor));
    }
    return chosen;
}

double Optimizer::update(std::vector<Tensor> gradients, double scale) {
    at::NoGradGuard no_gradients;
    std::vector<Tensor> chosen = trained_gradients(std::move(gradients));
    const double norm = norm_of(chosen).item<double>() / scale;
    if (!std::isfinite(norm)) return norm;
    const double factor =
        (settings_.clip > 0 && norm > settings_.clip ? settings_.clip / norm : 1.0) / scale;
    if (factor != 1.0 && chosen.front().is_cpu()) {
        // Not in place: autograd may return one tensor as the gradient of several parameters.
        for (Tensor& gradient : chosen) gradient = gradient * factor;
    } else if (factor != 1.0) {
        unshare(chosen);
        at::_foreach_mul_(chosen, factor);
    }
    apply(chosen, std::nullopt, std::nullopt);
    return norm;
}

Tensor Optimizer::update_unread(std::vector<Tensor> gradients, const Tensor& loss) {
    at::NoGradGuard no_gradients;
    std::vector<Tensor> chosen = trained_gradients(std::move(gradients));
    const Tensor norm = norm_of(chosen), sum = norm + loss.detach();
    const Tensor skip = (sum - sum).ne(0).to(at::kFloat);  // of what is not finite, it is NaN
    std::optional<Tensor> divisor;
    if (settings_.clip > 0) {
        divisor = (norm / settings_.clip).clamp_min(1.0);
        unshare(chosen);  // the gradients are divided in place
    }
    apply(chosen, divisor, skip);
    return norm;
}

backends::Parameters Optimizer::kept() const {
    if (!shares_.divided()) return parameters_;
    backends::Parameters mine;
    mine.set_base(parameters_.base());
    std::size_t index = 0;
    for (const auto& [name, tensor] : parameters_.tensors()) {
        if (shares_.mine(index++)) mine.set(name, tensor);
    }
    return mine;
}

/// One AdamW update of what is kept here, by gradients that are divided by `divisor`, unless `skip`
/// is 1, and the averages; these are float32 scalars on the gradients' device.
void Optimizer::apply(const std::vector<Tensor>& all_gradients,
                      const std::optional<Tensor>& divisor, const std::optional<Tensor>& skip) {
    const std::vector<Tensor> parameters = trained(kept());
    std::vector<Tensor> gradients;
    std::size_t index = 0, next = 0;
    for (const auto& [name, tensor] : parameters_.tensors()) {
        const bool mine = shares_.mine(index++);
        if (backends::is_buffer(name)) continue;
        if (mine) gradients.push_back(all_gradients[next]);
        ++next;
    }
    const std::int64_t done = updates_done();
    updates_.fill_(done + 1);
    updates_float_.fill_(static_cast<double>(earlier_updates_ + done + 1));
    if (const auto* kernels = backends::gpu_kernels(updates_float_.device()))
        return update_by_kernel(*kernels, parameters, std::move(gradients), done, divisor, skip);
    const std::vector<Tensor> steps(parameters.size(), updates_float_);
    if (!parameters.empty())
        at::_fused_adamw_(parameters, gradients, trained(first_moment_), trained(second_moment_),
                          {}, steps, scheduled_rate(settings_, done, total_), settings_.beta1,
                          settings_.beta2, settings_.weight_decay, 1e-8, false, false, divisor,
                          skip);
    shares_.spread(parameters_.list());
    parameters_.refresh_narrow();
    if (settings_.ema_decay > 0) update_average(average_, settings_.ema_decay, done + 1);
    for (const double decay : settings_.more_ema_decays)
        update_average(more_.at(fmt::format("{}", decay)), decay, done + 1);
}

/// The same by our kernel: moments, parameters, averages and narrow copies in one pass over memory.
void Optimizer::update_by_kernel(const kernels::gpu::Launcher& kernels,
                                 const std::vector<Tensor>& parameters,
                                 std::vector<Tensor> gradients, std::int64_t done,
                                 const std::optional<Tensor>& divisor,
                                 const std::optional<Tensor>& skip) {
    rate_.fill_(scheduled_rate(settings_, done, total_));
    backends::GpuAdamW update{.beta1 = settings_.beta1,
                              .beta2 = settings_.beta2,
                              .weight_decay = settings_.weight_decay,
                              .eps = 1e-8,
                              .parameters = parameters,
                              .gradients = std::move(gradients),
                              .first_moments = trained(first_moment_),
                              .second_moments = trained(second_moment_),
                              .step = updates_float_,
                              .rate = rate_,
                              .grad_scale = divisor.value_or(Tensor()),
                              .found_inf = skip.value_or(Tensor())};
    if (settings_.ema_decay > 0) {
        update.averages.push_back(trained(average_));
        update.average_decays.push_back(kept_share(settings_.ema_decay, done + 1));
    }
    for (const double decay : settings_.more_ema_decays) {
        update.averages.push_back(trained(more_.at(fmt::format("{}", decay))));
        update.average_decays.push_back(kept_share(decay, done + 1));
    }
    // Of tensors that other ranks update, copies are made when these have come.
    bool copies = !shares_.divided() && !parameters.empty();
    for (const auto& [name, tensor] : parameters_.tensors()) {
        if (backends::is_buffer(name) || !copies) continue;
        update.copies.push_back(parameters_.narrow(name));
        copies = update.copies.back().scalar_type() == at::kBFloat16;
    }
    if (!copies) update.copies.clear();
    if (!parameters.empty()) backends::gpu_adamw(kernels, update);
    shares_.spread(parameters_.list());
    if (!copies) parameters_.refresh_narrow();
}

void Optimizer::update_average(backends::Parameters& average, double decay,
                               std::int64_t updates) const {
    const double keep = kept_share(decay, updates);
    const std::vector<Tensor> averages = trained(average);
    if (!averages.empty()) at::_foreach_lerp_(averages, trained(kept()), 1 - keep);
}

backends::Parameters Optimizer::gathered(const backends::Parameters& kept,
                                         at::Device device) const {
    if (!shares_.divided()) return kept;
    const auto& all = parameters_.tensors();
    std::vector<std::string> names;
    for (const auto& [name, tensor] : all) names.push_back(name);
    backends::Parameters whole = kept;
    shares_.to_leader([&](std::size_t i) { return kept.at(names[i]); },
                      [&](std::size_t i, const Tensor& values) {
                          const Tensor tensor =
                              at::empty_like(all.at(names[i]), at::TensorOptions(device));
                          parallel::in_memory_order(tensor).copy_(values);
                          whole.set(names[i], tensor);
                      });
    return whole;
}

backends::Parameters Optimizer::with_shapes(const backends::Parameters& kept) const {
    backends::Parameters all = parameters_;
    for (const auto& [name, tensor] : kept.tensors()) all.set(name, tensor);
    return all;
}

backends::Parameters Optimizer::averaged() const {
    if (settings_.ema_decay <= 0) return parameters_;
    return gathered(average_, parameters_.list().front().device());
}

std::map<std::string, backends::Parameters> Optimizer::more_averages() const {
    std::map<std::string, backends::Parameters> all;
    for (const auto& [decay, average] : more_) all[decay] = gathered(average, at::kCPU);
    return all;
}

std::int64_t Optimizer::kept_bytes() const {
    std::int64_t bytes = bytes_of(first_moment_) + bytes_of(second_moment_) + bytes_of(average_);
    for (const auto& [decay, average] : more_) bytes += bytes_of(average);
    return bytes;
}

backends::Parameters Optimizer::state() const {
    return state_of([this](const backends::Parameters& kept) { return gathered(kept, at::kCPU); });
}

backends::Parameters Optimizer::moments() const {
    return moments_of(
        [this](const backends::Parameters& kept) { return gathered(kept, at::kCPU); });
}

backends::Parameters Optimizer::state_of(const Whole& whole) const {
    backends::Parameters all;
    all.merge(parameters_, "weights/");
    if (settings_.ema_decay > 0) all.merge(whole(average_), "ema/");
    for (const auto& [decay, average] : more_) all.merge(whole(average), "ema-" + decay + "/");
    all.merge(whole(first_moment_), "first_moment/");
    all.merge(whole(second_moment_), "second_moment/");
    all.set("updates", updates_);
    if (earlier_updates_ > 0) all.set("earlier_updates", at::full({}, earlier_updates_, at::kLong));
    return all;
}

backends::Parameters Optimizer::moments_of(const Whole& whole) const {
    backends::Parameters all;
    all.merge(whole(first_moment_), "first_moment/");
    all.merge(whole(second_moment_), "second_moment/");
    all.set("updates", updates_ + earlier_updates_);
    return all;
}

bool Optimizer::take_moments(const backends::Parameters& moments) {
    at::NoGradGuard no_gradients;
    const auto shapes = [this](const backends::Parameters& kept) { return with_shapes(kept); };
    const backends::Parameters all = moments_of(shapes), own = moments_of(as_kept);
    for (const auto& [name, tensor] : all.tensors()) {
        if (!moments.contains(name) || moments.at(name).sizes() != tensor.sizes()) return false;
    }
    for (const auto& [name, tensor] : own.tensors()) tensor.copy_(moments.at(name));
    earlier_updates_ = moments.at("updates").item<std::int64_t>();
    return true;
}

void Optimizer::restore(const backends::Parameters& saved) {
    const auto shapes = [this](const backends::Parameters& kept) { return with_shapes(kept); };
    backends::Parameters all = state_of(shapes), own = state_of(as_kept);
    if (saved.contains("earlier_updates")) {
        for (backends::Parameters* each : {&all, &own})
            each->set("earlier_updates", at::zeros({}, at::kLong));
    }
    for (const auto& [name, tensor] : all.tensors()) {
        if (!saved.contains(name) || saved.at(name).sizes() != tensor.sizes()) {
            core::fail(
                "the checkpoint lacks \"{}\" or holds it with another shape; it belongs to another "
                "network or optimiser",
                name);
        }
    }
    for (const auto& [name, tensor] : saved.tensors()) {
        if (!all.contains(name))
            core::fail(
                "the checkpoint also holds \"{}\"; it belongs to another network or optimiser",
                name);
    }
    own.copy_from(saved);
    if (own.contains("earlier_updates"))
        earlier_updates_ = own.at("earlier_updates").item<std::int64_t>();
    parameters_.refresh_narrow();
}

}  // namespace atelier::training
