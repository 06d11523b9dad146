#include "atelier/diffusion/preconditioning.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"

namespace atelier::diffusion {

namespace {

Preconditioning edm(const Tensor& sigma, double sigma_data) {
    const Tensor total = sigma * sigma + sigma_data * sigma_data;
    return {sigma_data * sigma_data / total, sigma * sigma_data / total.sqrt(), 1.0 / total.sqrt(), sigma.log() / 4};
}

/// The time at which VP's schedule reaches sigma, times M - 1.
Tensor vp_timestep(const Tensor& sigma, const Scheme& scheme) {
    const Tensor root = (scheme.beta_min * scheme.beta_min + 2 * scheme.beta_d * (1 + sigma * sigma).log()).sqrt();
    return (scheme.timesteps - 1) * ((root - scheme.beta_min) / scheme.beta_d);
}

double vp_level(const Scheme& scheme, double t) { return std::sqrt(std::expm1(0.5 * scheme.beta_d * t * t + scheme.beta_min * t)); }

/// sigma_t / alpha_t, increasing.
std::vector<double> ddpm_levels(const DdpmSchedule& schedule) {
    std::vector<double> levels;
    for (const double signal : schedule.signal) levels.push_back(std::sqrt((1 - signal) / signal));
    return levels;
}

/// The time step whose level is sigma; between two levels by ln sigma, beyond them the first or the last.
Tensor ddpm_timestep(const Tensor& sigma, const DdpmSchedule& schedule) {
    const auto last = static_cast<std::int64_t>(schedule.signal.size()) - 1;
    if (last == 0) return at::zeros_like(sigma);
    const Tensor known = at::tensor(ddpm_levels(schedule), at::kDouble).log().to(sigma.device()), wanted = sigma.to(at::kDouble).log();
    const Tensor above = at::searchsorted(known, wanted).clamp(1, last), below = above - 1;
    const Tensor from = known.index_select(0, below), to = known.index_select(0, above);
    return (below + (wanted - from) / (to - from)).clamp(0, static_cast<double>(last)).to(sigma.scalar_type());
}

Preconditioning ddpm(const Tensor& sigma, const DdpmSchedule& schedule) {
    const Tensor c_in = 1 / (sigma * sigma + 1).sqrt(), t = ddpm_timestep(sigma, schedule);
    if (schedule.prediction == DdpmSchedule::Prediction::velocity) return {c_in * c_in, -sigma * c_in, c_in, t};
    return {at::ones_like(sigma), -sigma, c_in, t};
}

Scheme::Kind read_kind(const core::JsonObject& config) {
    const std::string word = config.text_or("preconditioning", "edm");
    if (word == "edm") return Scheme::Kind::edm;
    if (word == "vp") return Scheme::Kind::vp;
    if (word == "ve") return Scheme::Kind::ve;
    if (word == "ddpm") return Scheme::Kind::ddpm;
    core::fail("{}: \"preconditioning\" is \"{}\"; known are edm, vp, ve and ddpm", config.where(), word);
}

}  // namespace

Scheme read_scheme(const core::JsonObject& config) {
    Scheme scheme;
    scheme.kind = read_kind(config);
    scheme.sigma_data = config.number_or("sigma_data", scheme.sigma_data, 1e-6, 1e6);
    scheme.beta_d = config.number_or("beta_d", scheme.beta_d, 1e-3, 1e3);
    scheme.beta_min = config.number_or("beta_min", scheme.beta_min, 0, 1e3);
    scheme.timesteps = config.number_or("timesteps", scheme.timesteps, 2, 1e6);
    if (scheme.kind == Scheme::Kind::ddpm) scheme.schedule = DdpmSchedule::of(config.object("scheduler"));
    return scheme;
}

NoiseRange usual_range(const Scheme& scheme) {
    switch (scheme.kind) {
        case Scheme::Kind::vp: return {vp_level(scheme, 1e-5), vp_level(scheme, 1)};
        case Scheme::Kind::ve: return {0.02, 100};
        case Scheme::Kind::ddpm: {
            const std::vector<double> levels = ddpm_levels(*scheme.schedule);
            return {levels.front(), levels.back(), true};
        }
        case Scheme::Kind::edm: break;
    }
    return {};
}

Preconditioning precondition(const Tensor& sigma, const Scheme& scheme) {
    switch (scheme.kind) {
        case Scheme::Kind::vp: return {at::ones_like(sigma), -sigma, 1 / (sigma * sigma + 1).sqrt(), vp_timestep(sigma, scheme)};
        case Scheme::Kind::ve: return {at::ones_like(sigma), sigma, at::ones_like(sigma), (0.5 * sigma).log()};
        case Scheme::Kind::ddpm: return ddpm(sigma, *scheme.schedule);
        case Scheme::Kind::edm: break;
    }
    return edm(sigma, scheme.sigma_data);
}

Tensor edm_loss_weight(const Tensor& sigma, double sigma_data) {
    return (sigma * sigma + sigma_data * sigma_data) / (sigma * sigma_data).square();
}

Tensor denoising_weight(const Tensor& sigma, const Scheme& scheme) {
    if (scheme.kind == Scheme::Kind::ddpm) return precondition(sigma, scheme).c_out.square().reciprocal();
    return edm_loss_weight(sigma, scheme.sigma_data);
}

std::vector<double> matching_levels(const Scheme& scheme, const NoiseRange& range) {
    constexpr std::size_t count = 1000;
    if (scheme.kind != Scheme::Kind::ddpm) {
        std::vector<double> levels = karras_levels(range, count);
        std::ranges::reverse(levels);
        return levels;
    }
    const std::vector<double> own = ddpm_levels(*scheme.schedule);
    std::vector<double> levels;
    for (std::size_t i = 0; i < count; ++i) levels.push_back(own[(i * (own.size() - 1) + (count - 1) / 2) / (count - 1)]);
    return levels;
}

Tensor indexed_levels(core::RandomStream& stream, std::int64_t count, std::span<const double> levels, std::int64_t first, std::int64_t last) {
    Tensor sigma = at::empty({count}, at::kFloat);
    float* numbers = sigma.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < count; ++i) {
        const auto index = first + static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(last - first + 1)));
        numbers[i] = static_cast<float>(levels[static_cast<std::size_t>(index)]);
    }
    return sigma;
}

Tensor training_levels(core::RandomStream& stream, std::int64_t count, const Scheme& scheme, double mean, double deviation) {
    if (scheme.kind != Scheme::Kind::ddpm) return lognormal_levels(stream, count, mean, deviation);
    const std::vector<double> own = ddpm_levels(*scheme.schedule);
    return indexed_levels(stream, count, own, 0, static_cast<std::int64_t>(own.size()) - 1);
}

Tensor along(const Tensor& per_sample, const Tensor& like) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
    shape[0] = -1;
    return per_sample.reshape(shape);
}

}  // namespace atelier::diffusion
