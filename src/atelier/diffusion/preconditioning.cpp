#include "atelier/diffusion/preconditioning.h"

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

Scheme::Kind read_kind(const core::JsonObject& config) {
    const std::string word = config.text_or("preconditioning", "edm");
    if (word == "edm") return Scheme::Kind::edm;
    if (word == "vp") return Scheme::Kind::vp;
    if (word == "ve") return Scheme::Kind::ve;
    core::fail("{}: \"preconditioning\" is \"{}\"; known are edm, vp and ve", config.where(), word);
}

}  // namespace

Scheme read_scheme(const core::JsonObject& config) {
    Scheme scheme;
    scheme.kind = read_kind(config);
    scheme.sigma_data = config.number_or("sigma_data", scheme.sigma_data, 1e-6, 1e6);
    scheme.beta_d = config.number_or("beta_d", scheme.beta_d, 1e-3, 1e3);
    scheme.beta_min = config.number_or("beta_min", scheme.beta_min, 0, 1e3);
    scheme.timesteps = config.number_or("timesteps", scheme.timesteps, 2, 1e6);
    return scheme;
}

NoiseRange usual_range(const Scheme& scheme) {
    switch (scheme.kind) {
        case Scheme::Kind::vp: return {vp_level(scheme, 1e-5), vp_level(scheme, 1)};
        case Scheme::Kind::ve: return {0.02, 100};
        case Scheme::Kind::edm: break;
    }
    return {};
}

Preconditioning precondition(const Tensor& sigma, const Scheme& scheme) {
    switch (scheme.kind) {
        case Scheme::Kind::vp: return {at::ones_like(sigma), -sigma, 1 / (sigma * sigma + 1).sqrt(), vp_timestep(sigma, scheme)};
        case Scheme::Kind::ve: return {at::ones_like(sigma), sigma, at::ones_like(sigma), (0.5 * sigma).log()};
        case Scheme::Kind::edm: break;
    }
    return edm(sigma, scheme.sigma_data);
}

Tensor edm_loss_weight(const Tensor& sigma, double sigma_data) {
    return (sigma * sigma + sigma_data * sigma_data) / (sigma * sigma_data).square();
}

Tensor along(const Tensor& per_sample, const Tensor& like) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
    shape[0] = -1;
    return per_sample.reshape(shape);
}

}  // namespace atelier::diffusion
