#include "atelier/diffusion/noise_schedule.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "atelier/backends/torch/transfer.h"
#include "atelier/core/error.h"

namespace atelier::diffusion {

namespace {

constexpr std::int64_t matching_count = 1000;

/// The time at which VP's schedule reaches sigma, times M - 1.
Tensor vp_timestep(const Tensor& sigma, const VpNoise& vp) {
    const Tensor root =
        (vp.beta_min * vp.beta_min + 2 * vp.beta_d * (1 + sigma * sigma).log()).sqrt();
    return (vp.timesteps - 1) * ((root - vp.beta_min) / vp.beta_d);
}

double vp_level(const VpNoise& vp, double t) {
    return std::sqrt(std::expm1(0.5 * vp.beta_d * t * t + vp.beta_min * t));
}

/// sigma_t / alpha_t, increasing.
std::vector<double> ddpm_levels(const DdpmSchedule& schedule) {
    std::vector<double> levels;
    for (const double alpha_cumprod : schedule.alphas_cumprod)
        levels.push_back(std::sqrt((1 - alpha_cumprod) / alpha_cumprod));
    return levels;
}

/// ln of a schedule's levels, float64; made once for each schedule.
const backends::DeviceConstant& log_levels_of(const DdpmSchedule& schedule) {
    static std::mutex mutex;
    static std::map<std::vector<double>, backends::DeviceConstant> all;
    const std::lock_guard lock(mutex);
    auto found = all.find(schedule.alphas_cumprod);
    if (found == all.end()) {
        const Tensor levels = at::tensor(ddpm_levels(schedule), at::kDouble);
        found = all.try_emplace(schedule.alphas_cumprod, levels.log()).first;
    }
    return found->second;
}

/// The time step whose level is sigma, interpolated in ln sigma and clamped to the first and last
/// step.
Tensor ddpm_timestep(const Tensor& sigma, const DdpmSchedule& schedule) {
    const auto last = static_cast<std::int64_t>(schedule.alphas_cumprod.size()) - 1;
    if (last == 0) return at::zeros_like(sigma);
    const Tensor log_levels = log_levels_of(schedule).on(sigma.device()),
                 log_sigma = sigma.to(at::kDouble).log();
    const Tensor above = at::searchsorted(log_levels, log_sigma).clamp(1, last), below = above - 1;
    const Tensor from = log_levels.index_select(0, below), to = log_levels.index_select(0, above);
    return (below + (log_sigma - from) / (to - from))
        .clamp(0, static_cast<double>(last))
        .to(sigma.scalar_type());
}

/// The weight that makes the loss the error of what the network predicts.
Tensor prediction_weight(const Preconditioning& with) { return with.c_out.square().reciprocal(); }

double flow_time(const FlowNoise& flow, double sigma) {
    const double unshifted = sigma / flow.shift;
    return unshifted / (1 + unshifted);
}

/// `count` levels, evenly spaced in the unshifted time from that of `from` to that of `to`.
std::vector<double> flow_levels(const FlowNoise& flow, double from, double to, std::int64_t count) {
    const double first = flow_time(flow, from), last = flow_time(flow, to);
    std::vector<double> levels;
    for (std::int64_t i = 0; i < count; ++i) {
        const double fraction =
            count > 1 ? static_cast<double>(i) / static_cast<double>(count - 1) : 0.0;
        const double t = first + fraction * (last - first);
        levels.push_back(flow.shift * t / (1 - t));
    }
    return levels;
}

NoiseSchedule::Kind read_kind(const core::JsonObject& config) {
    const std::string name = config.text_or("preconditioning", "edm");
    if (name == "edm") return EdmNoise{};
    if (name == "ve") return VeNoise{};
    if (name == "vp") {
        VpNoise vp;
        vp.beta_d = config.number_or("beta_d", vp.beta_d, 1e-3, 1e3);
        vp.beta_min = config.number_or("beta_min", vp.beta_min, 0, 1e3);
        vp.timesteps = config.number_or("timesteps", vp.timesteps, 2, 1e6);
        return vp;
    }
    if (name == "ddpm") {
        DdpmNoise ddpm;
        ddpm.schedule = DdpmSchedule::of(config.object("scheduler"));
        ddpm.scheduler = config.json().at("scheduler");
        return ddpm;
    }
    if (name == "flow") {
        FlowNoise flow;
        flow.timesteps = config.number_or("timesteps", flow.timesteps, 1, 1e6);
        flow.shift = config.number_or("shift", flow.shift, 1e-3, 1e3);
        return flow;
    }
    core::fail("{}: \"preconditioning\" is \"{}\"; known are edm, vp, ve, ddpm and flow",
               config.where(), name);
}

}  // namespace

Tensor NoiseKind::loss_weight(const NoiseSchedule& of, const Tensor& sigma) {
    return edm_loss_weight(sigma, of.sigma_data);
}

Tensor NoiseKind::training_levels(const NoiseSchedule& of, core::RandomStream& stream,
                                  std::int64_t count) {
    return lognormal_levels(stream, count, of.p_mean, of.p_std);
}

std::vector<double> NoiseKind::matching_levels(const NoiseSchedule& of) {
    std::vector<double> levels = karras_levels(of.sigma_min, of.sigma_max, matching_count);
    std::ranges::reverse(levels);
    return levels;
}

std::vector<double> NoiseKind::sampling_levels(const NoiseSchedule& of, std::int64_t count) {
    return karras_levels(of.sigma_min, of.sigma_max, count);
}

double NoiseKind::initial_noise_scale(const NoiseSchedule& of) { return of.sigma_max; }

Preconditioning EdmNoise::preconditioning(const NoiseSchedule& of, const Tensor& sigma) {
    const double sigma_data = of.sigma_data;
    const Tensor total = sigma * sigma + sigma_data * sigma_data, root = total.sqrt();
    return {sigma_data * sigma_data / total, sigma * sigma_data / root, 1.0 / root,
            sigma.log() / 4};
}

SigmaRange VpNoise::range() const { return {vp_level(*this, 1e-5), vp_level(*this, 1)}; }

Preconditioning VpNoise::preconditioning(const NoiseSchedule&, const Tensor& sigma) const {
    return {at::ones_like(sigma), -sigma, 1 / (sigma * sigma + 1).sqrt(),
            vp_timestep(sigma, *this)};
}

void VpNoise::write(nlohmann::json& config) const {
    config["preconditioning"] = "vp";
    config["beta_d"] = beta_d;
    config["beta_min"] = beta_min;
    config["timesteps"] = timesteps;
}

Preconditioning VeNoise::preconditioning(const NoiseSchedule&, const Tensor& sigma) {
    return {at::ones_like(sigma), sigma, at::ones_like(sigma), (0.5 * sigma).log()};
}

void VeNoise::write(nlohmann::json& config) { config["preconditioning"] = "ve"; }

SigmaRange DdpmNoise::range() const {
    const std::vector<double> levels = ddpm_levels(schedule);
    return {levels.front(), levels.back()};
}

Preconditioning DdpmNoise::preconditioning(const NoiseSchedule&, const Tensor& sigma) const {
    const Tensor c_in = 1 / (sigma * sigma + 1).sqrt(), t = ddpm_timestep(sigma, schedule);
    if (schedule.prediction == DdpmSchedule::Prediction::v_prediction)
        return {c_in * c_in, -sigma * c_in, c_in, t};
    return {at::ones_like(sigma), -sigma, c_in, t};
}

Tensor DdpmNoise::loss_weight(const NoiseSchedule& of, const Tensor& sigma) const {
    return prediction_weight(preconditioning(of, sigma));
}

Tensor DdpmNoise::training_levels(const NoiseSchedule&, core::RandomStream& stream,
                                  std::int64_t count) const {
    const std::vector<double> own = ddpm_levels(schedule);
    return indexed_levels(stream, count, own, 0, static_cast<std::int64_t>(own.size()) - 1);
}

std::vector<double> DdpmNoise::matching_levels(const NoiseSchedule&) const {
    constexpr auto count = static_cast<std::size_t>(matching_count);
    const std::vector<double> own = ddpm_levels(schedule);
    std::vector<double> levels;
    for (std::size_t i = 0; i < count; ++i)
        levels.push_back(own[(i * (own.size() - 1) + (count - 1) / 2) / (count - 1)]);
    return levels;
}

/// sqrt(1 + sigma^2): times c_in, it leaves z.
double DdpmNoise::initial_noise_scale(const NoiseSchedule& of) {
    return std::sqrt(1 + of.sigma_max * of.sigma_max);
}

void DdpmNoise::write(nlohmann::json& config) const {
    config["preconditioning"] = "ddpm";
    config["scheduler"] = scheduler;
}

SigmaRange FlowNoise::range() const {
    constexpr double first = 0.001, last = 0.999;
    return {shift * first / (1 - first), shift * last / (1 - last)};
}

/// With 1 - t = 1 / (1 + sigma): x_t = c_in (x_0 + sigma z), and x_0 = x_t - t (z - x_0).
Preconditioning FlowNoise::preconditioning(const NoiseSchedule&, const Tensor& sigma) const {
    const Tensor c_in = 1 / (1 + sigma), t = sigma * c_in;
    return {c_in, -t, c_in, timesteps * t};
}

Tensor FlowNoise::loss_weight(const NoiseSchedule& of, const Tensor& sigma) const {
    return prediction_weight(preconditioning(of, sigma));
}

Tensor FlowNoise::training_levels(const NoiseSchedule& of, core::RandomStream& stream,
                                  std::int64_t count) const {
    return shift * lognormal_levels(stream, count, of.p_mean, of.p_std);
}

std::vector<double> FlowNoise::matching_levels(const NoiseSchedule& of) const {
    return flow_levels(*this, of.sigma_min, of.sigma_max, matching_count);
}

std::vector<double> FlowNoise::sampling_levels(const NoiseSchedule& of, std::int64_t count) const {
    return flow_levels(*this, of.sigma_max, of.sigma_min, count);
}

/// 1 / (1 - t): times c_in, it leaves z.
double FlowNoise::initial_noise_scale(const NoiseSchedule& of) { return 1 + of.sigma_max; }

void FlowNoise::write(nlohmann::json& config) const {
    config["preconditioning"] = "flow";
    config["timesteps"] = timesteps;
    config["shift"] = shift;
}

NoiseSchedule::NoiseSchedule(Kind of) : kind(std::move(of)) {
    std::visit(
        [this](const auto& each) {
            const SigmaRange range = each.range();
            sigma_min = range.min;
            sigma_max = range.max;
            p_mean = each.p_mean;
            p_std = each.p_std;
        },
        kind);
}

NoiseSchedule NoiseSchedule::edm(double sigma_data, double sigma_min, double sigma_max) {
    NoiseSchedule schedule;
    schedule.sigma_data = sigma_data;
    schedule.sigma_min = sigma_min;
    schedule.sigma_max = sigma_max;
    return schedule;
}

NoiseSchedule NoiseSchedule::read(const core::JsonObject& config) {
    NoiseSchedule schedule(read_kind(config));
    schedule.sigma_data = config.number_or("sigma_data", schedule.sigma_data, 1e-6, 1e6);
    schedule.sigma_min = config.number_or("sigma_min", schedule.sigma_min, 1e-9, 1e9);
    schedule.sigma_max = config.number_or("sigma_max", schedule.sigma_max, 1e-9, 1e9);
    if (schedule.sigma_min >= schedule.sigma_max)
        core::fail("{}: sigma_min must be below sigma_max", config.where());
    return schedule;
}

void NoiseSchedule::write(nlohmann::json& config) const {
    std::visit([&](const auto& each) { each.write(config); }, kind);
    config["sigma_data"] = sigma_data;
    config["sigma_min"] = sigma_min;
    config["sigma_max"] = sigma_max;
}

Preconditioning NoiseSchedule::preconditioning(const Tensor& sigma) const {
    return std::visit([&](const auto& each) { return each.preconditioning(*this, sigma); }, kind);
}

Tensor NoiseSchedule::loss_weight(const Tensor& sigma) const {
    return std::visit([&](const auto& each) { return each.loss_weight(*this, sigma); }, kind);
}

Tensor NoiseSchedule::training_levels(core::RandomStream& stream, std::int64_t count) const {
    return std::visit([&](const auto& each) { return each.training_levels(*this, stream, count); },
                      kind);
}

std::vector<double> NoiseSchedule::matching_levels() const {
    return std::visit([&](const auto& each) { return each.matching_levels(*this); }, kind);
}

std::vector<double> NoiseSchedule::student_levels(std::int64_t steps) const {
    const std::vector<double> all = matching_levels();
    const auto count = static_cast<std::int64_t>(all.size());
    std::vector<double> levels{sigma_max};
    for (std::int64_t k = 1; k < steps; ++k)
        levels.push_back(all[static_cast<std::size_t>(count - 1 - k * count / steps)]);
    return levels;
}

std::vector<double> NoiseSchedule::sampling_levels(std::int64_t count) const {
    std::vector<double> levels =
        std::visit([&](const auto& each) { return each.sampling_levels(*this, count); }, kind);
    levels.push_back(0.0);
    return levels;
}

double NoiseSchedule::initial_noise_scale() const {
    return std::visit([&](const auto& each) { return each.initial_noise_scale(*this); }, kind);
}

Tensor edm_loss_weight(const Tensor& sigma, double sigma_data) {
    return (sigma * sigma + sigma_data * sigma_data) / (sigma * sigma_data).square();
}

Tensor expand_like(const Tensor& per_sample, const Tensor& like) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
    shape[0] = -1;
    return per_sample.reshape(shape);
}

}  // namespace atelier::diffusion
