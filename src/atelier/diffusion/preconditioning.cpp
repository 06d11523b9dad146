#include "atelier/diffusion/preconditioning.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"

namespace atelier::diffusion {

namespace {

Preconditioning edm(const Tensor& sigma, double sigma_data) {
    const Tensor total = sigma * sigma + sigma_data * sigma_data;
    return {sigma_data * sigma_data / total, sigma * sigma_data / total.sqrt(), 1.0 / total.sqrt(),
            sigma.log() / 4};
}

/// The time at which VP's schedule reaches sigma, times M - 1.
Tensor vp_timestep(const Tensor& sigma, const Parametrisation& parametrisation) {
    const Tensor root = (parametrisation.beta_min * parametrisation.beta_min +
                         2 * parametrisation.beta_d * (1 + sigma * sigma).log())
                            .sqrt();
    return (parametrisation.timesteps - 1) *
           ((root - parametrisation.beta_min) / parametrisation.beta_d);
}

double vp_level(const Parametrisation& parametrisation, double t) {
    return std::sqrt(
        std::expm1(0.5 * parametrisation.beta_d * t * t + parametrisation.beta_min * t));
}

/// sigma_t / alpha_t, increasing.
std::vector<double> ddpm_levels(const DdpmSchedule& schedule) {
    std::vector<double> levels;
    for (const double alpha_cumprod : schedule.alphas_cumprod)
        levels.push_back(std::sqrt((1 - alpha_cumprod) / alpha_cumprod));
    return levels;
}

/// The time step whose level is sigma, interpolated in ln sigma and clamped to the first and last
/// step.
Tensor ddpm_timestep(const Tensor& sigma, const DdpmSchedule& schedule) {
    const auto last = static_cast<std::int64_t>(schedule.alphas_cumprod.size()) - 1;
    if (last == 0) return at::zeros_like(sigma);
    const Tensor log_levels =
                     at::tensor(ddpm_levels(schedule), at::kDouble).log().to(sigma.device()),
                 log_sigma = sigma.to(at::kDouble).log();
    const Tensor above = at::searchsorted(log_levels, log_sigma).clamp(1, last), below = above - 1;
    const Tensor from = log_levels.index_select(0, below), to = log_levels.index_select(0, above);
    return (below + (log_sigma - from) / (to - from))
        .clamp(0, static_cast<double>(last))
        .to(sigma.scalar_type());
}

Preconditioning ddpm(const Tensor& sigma, const DdpmSchedule& schedule) {
    const Tensor c_in = 1 / (sigma * sigma + 1).sqrt(), t = ddpm_timestep(sigma, schedule);
    if (schedule.prediction == DdpmSchedule::Prediction::v_prediction)
        return {c_in * c_in, -sigma * c_in, c_in, t};
    return {at::ones_like(sigma), -sigma, c_in, t};
}

Parametrisation::Kind read_kind(const core::JsonObject& config) {
    const std::string name = config.text_or("preconditioning", "edm");
    if (name == "edm") return Parametrisation::Kind::edm;
    if (name == "vp") return Parametrisation::Kind::vp;
    if (name == "ve") return Parametrisation::Kind::ve;
    if (name == "ddpm") return Parametrisation::Kind::ddpm;
    core::fail("{}: \"preconditioning\" is \"{}\"; known are edm, vp, ve and ddpm", config.where(),
               name);
}

}  // namespace

Parametrisation read_parametrisation(const core::JsonObject& config) {
    Parametrisation parametrisation;
    parametrisation.kind = read_kind(config);
    parametrisation.sigma_data =
        config.number_or("sigma_data", parametrisation.sigma_data, 1e-6, 1e6);
    parametrisation.beta_d = config.number_or("beta_d", parametrisation.beta_d, 1e-3, 1e3);
    parametrisation.beta_min = config.number_or("beta_min", parametrisation.beta_min, 0, 1e3);
    parametrisation.timesteps = config.number_or("timesteps", parametrisation.timesteps, 2, 1e6);
    if (parametrisation.kind == Parametrisation::Kind::ddpm)
        parametrisation.schedule = DdpmSchedule::of(config.object("scheduler"));
    return parametrisation;
}

NoiseRange default_range(const Parametrisation& parametrisation) {
    switch (parametrisation.kind) {
        case Parametrisation::Kind::vp:
            return {vp_level(parametrisation, 1e-5), vp_level(parametrisation, 1)};
        case Parametrisation::Kind::ve:
            return {0.02, 100};
        case Parametrisation::Kind::ddpm: {
            const std::vector<double> levels = ddpm_levels(*parametrisation.schedule);
            return {levels.front(), levels.back(), true};
        }
        case Parametrisation::Kind::edm:
            break;
    }
    return {};
}

Preconditioning precondition(const Tensor& sigma, const Parametrisation& parametrisation) {
    switch (parametrisation.kind) {
        case Parametrisation::Kind::vp:
            return {at::ones_like(sigma), -sigma, 1 / (sigma * sigma + 1).sqrt(),
                    vp_timestep(sigma, parametrisation)};
        case Parametrisation::Kind::ve:
            return {at::ones_like(sigma), sigma, at::ones_like(sigma), (0.5 * sigma).log()};
        case Parametrisation::Kind::ddpm:
            return ddpm(sigma, *parametrisation.schedule);
        case Parametrisation::Kind::edm:
            break;
    }
    return edm(sigma, parametrisation.sigma_data);
}

Tensor edm_loss_weight(const Tensor& sigma, double sigma_data) {
    return (sigma * sigma + sigma_data * sigma_data) / (sigma * sigma_data).square();
}

Tensor denoising_weight(const Tensor& sigma, const Parametrisation& parametrisation) {
    if (parametrisation.kind == Parametrisation::Kind::ddpm)
        return precondition(sigma, parametrisation).c_out.square().reciprocal();
    return edm_loss_weight(sigma, parametrisation.sigma_data);
}

std::vector<double> matching_levels(const Parametrisation& parametrisation,
                                    const NoiseRange& range) {
    constexpr std::size_t count = 1000;
    if (parametrisation.kind != Parametrisation::Kind::ddpm) {
        std::vector<double> levels = karras_levels(range, count);
        std::ranges::reverse(levels);
        return levels;
    }
    const std::vector<double> own = ddpm_levels(*parametrisation.schedule);
    std::vector<double> levels;
    for (std::size_t i = 0; i < count; ++i)
        levels.push_back(own[(i * (own.size() - 1) + (count - 1) / 2) / (count - 1)]);
    return levels;
}

Tensor indexed_levels(core::RandomStream& stream, std::int64_t count,
                      std::span<const double> levels, std::int64_t first, std::int64_t last) {
    Tensor sigma = at::empty({count}, at::kFloat);
    float* values = sigma.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < count; ++i) {
        const auto index = first + static_cast<std::int64_t>(
                                       stream.below(static_cast<std::uint64_t>(last - first + 1)));
        values[i] = static_cast<float>(levels[static_cast<std::size_t>(index)]);
    }
    return sigma;
}

Tensor training_levels(core::RandomStream& stream, std::int64_t count,
                       const Parametrisation& parametrisation, double p_mean, double p_std) {
    if (parametrisation.kind != Parametrisation::Kind::ddpm)
        return lognormal_levels(stream, count, p_mean, p_std);
    const std::vector<double> own = ddpm_levels(*parametrisation.schedule);
    return indexed_levels(stream, count, own, 0, static_cast<std::int64_t>(own.size()) - 1);
}

Tensor expand_like(const Tensor& per_sample, const Tensor& like) {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
    shape[0] = -1;
    return per_sample.reshape(shape);
}

}  // namespace atelier::diffusion
