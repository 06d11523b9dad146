#pragma once

#include <span>
#include <variant>
#include <vector>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/json_file.h"
#include "atelier/diffusion/ddpm_schedule.h"
#include "atelier/diffusion/noise_levels.h"

namespace atelier::diffusion {

/// The coefficients that turn a network F into a denoiser, D = c_skip x_t + c_out F(c_in x_t;
/// c_noise, c) (Karras et al. 2022, table 1). Each is [N], like sigma.
struct Preconditioning {
    Tensor c_skip, c_out, c_in, c_noise;
};

class NoiseSchedule;

/// The lowest and the highest noise level.
struct SigmaRange {
    double min, max;
};

/// What a kind of noise schedule does unless it says otherwise.
struct NoiseKind {
    static constexpr double p_mean = -1.2, p_std = 1.2;
    bool operator==(const NoiseKind&) const = default;

    /// EDM's weight.
    static Tensor loss_weight(const NoiseSchedule& of, const Tensor& sigma);
    /// ln sigma ~ N(p_mean, p_std^2)
    static Tensor training_levels(const NoiseSchedule& of, core::RandomStream& stream,
                                  std::int64_t count);
    /// Karras levels.
    static std::vector<double> matching_levels(const NoiseSchedule& of);
    static std::vector<double> sampling_levels(const NoiseSchedule& of, std::int64_t count);
    /// sigma_max
    static double initial_noise_scale(const NoiseSchedule& of);
};

/// Karras et al. 2022.
struct EdmNoise : NoiseKind {
    static SigmaRange range() { return {0.002, 80}; }
    static Preconditioning preconditioning(const NoiseSchedule& of, const Tensor& sigma);
    static void write(nlohmann::json&) {}
    bool operator==(const EdmNoise&) const = default;
};

/// Variance preserving SDE (Song et al. 2021), for t from 1e-5 to 1.
struct VpNoise : NoiseKind {
    double beta_d = 19.9, beta_min = 0.1;
    double timesteps = 1000;  // M: c_noise goes up to M - 1

    SigmaRange range() const;
    Preconditioning preconditioning(const NoiseSchedule& of, const Tensor& sigma) const;
    void write(nlohmann::json& config) const;
    bool operator==(const VpNoise&) const = default;
};

/// Variance exploding SDE (Song et al. 2021).
struct VeNoise : NoiseKind {
    static SigmaRange range() { return {0.02, 100}; }
    static Preconditioning preconditioning(const NoiseSchedule& of, const Tensor& sigma);
    static void write(nlohmann::json& config);
    bool operator==(const VeNoise&) const = default;
};

/// The time steps of Ho et al. 2020: x_t = alpha_t x_0 + sigma_t z, here x_t / alpha_t with
/// sigma = sigma_t / alpha_t; a student starts from x_T = z. c_noise is the time step, fractional
/// between two levels of the schedule. The network predicts epsilon or v.
struct DdpmNoise : NoiseKind {
    DdpmSchedule schedule;
    nlohmann::json scheduler;  // what `schedule` was read from, in diffusers' form

    SigmaRange range() const;
    Preconditioning preconditioning(const NoiseSchedule& of, const Tensor& sigma) const;
    Tensor loss_weight(const NoiseSchedule& of, const Tensor& sigma) const;
    Tensor training_levels(const NoiseSchedule& of, core::RandomStream& stream,
                           std::int64_t count) const;
    std::vector<double> matching_levels(const NoiseSchedule& of) const;
    static double initial_noise_scale(const NoiseSchedule& of);
    void write(nlohmann::json& config) const;
    bool operator==(const DdpmNoise&) const = default;
};

/// Flow matching and rectified flows (Lipman et al. 2023, Liu et al. 2023): x_t = (1-t) x_0 + t z,
/// here x_t / (1-t) with sigma = t / (1-t). The network predicts the velocity z - x_0 from x_t and
/// c_noise = `timesteps` t; a student starts from z. `shift` s moves levels to s t / (1 + (s-1) t)
/// (Esser et al. 2024, who draw logit-normal t: ln sigma ~ N(p_mean, p_std^2)), which is s sigma.
struct FlowNoise : NoiseKind {
    static constexpr double p_mean = 0, p_std = 1;
    double timesteps = 1000, shift = 1;

    SigmaRange range() const;  // t from 0.001 to 0.999, shifted
    Preconditioning preconditioning(const NoiseSchedule& of, const Tensor& sigma) const;
    Tensor loss_weight(const NoiseSchedule& of, const Tensor& sigma) const;
    Tensor training_levels(const NoiseSchedule& of, core::RandomStream& stream,
                           std::int64_t count) const;
    /// Evenly spaced in t, then shifted.
    std::vector<double> matching_levels(const NoiseSchedule& of) const;
    std::vector<double> sampling_levels(const NoiseSchedule& of, std::int64_t count) const;
    static double initial_noise_scale(const NoiseSchedule& of);
    void write(nlohmann::json& config) const;
    bool operator==(const FlowNoise&) const = default;
};

/// How noise is added, and how a network of this kind denoises: the only source of noise levels,
/// preconditioning and loss weights. Noised samples are x_0 + sigma z for every kind.
class NoiseSchedule {
public:
    using Kind = std::variant<EdmNoise, VpNoise, VeNoise, DdpmNoise, FlowNoise>;

    NoiseSchedule() : NoiseSchedule(EdmNoise{}) {}
    /// The levels that models of this kind are trained for.
    NoiseSchedule(Kind kind);  // NOLINT(google-explicit-constructor)
    static NoiseSchedule edm(double sigma_data, double sigma_min = 0.002, double sigma_max = 80);

    /// Reads `preconditioning` ("edm" if absent, "vp", "ve", "ddpm", "flow"), its constants (DDPM's
    /// in `scheduler`, as in diffusers), `sigma_data`, `sigma_min` and `sigma_max` from a
    /// config.json. Throws core::Error naming file and key.
    static NoiseSchedule read(const core::JsonObject& config);
    /// Writes what `read` reads; P_mean and P_std belong to a run.
    void write(nlohmann::json& config) const;

    /// The coefficients at `sigma` [N], positive, in the type of sigma; float32 rounds c_noise as
    /// EDM does.
    Preconditioning preconditioning(const Tensor& sigma) const;

    /// Weight of |D - x|^2 in training, [N]: EDM's, or for DDPM and flow 1/c_out^2, which makes the
    /// loss the error of the network's prediction.
    Tensor loss_weight(const Tensor& sigma) const;

    /// Noise levels for training a diffusion model, [count] float32: ln sigma ~ N(p_mean, p_std^2),
    /// or for DDPM uniform over its time steps.
    Tensor training_levels(core::RandomStream& stream, std::int64_t count) const;

    /// The 1000 levels that distillation draws from, increasing: Karras levels, DDPM's own, or
    /// flow's, evenly spaced in t.
    std::vector<double> matching_levels() const;

    /// The levels of a student of `steps` evaluations, decreasing from sigma_max: `steps` of the
    /// matching levels, evenly spaced by index (999, 749, 499 and 249 of four, as DMD2 has them).
    std::vector<double> student_levels(std::int64_t steps) const;

    /// `count` levels from sigma_max to sigma_min, and a final 0: those of multi-step samplers.
    std::vector<double> sampling_levels(std::int64_t count) const;

    /// Factor on standard normal noise that gives a student's x_t at sigma_max.
    double initial_noise_scale() const;

    bool operator==(const NoiseSchedule&) const = default;

    Kind kind;
    double sigma_data = 0.5;  // standard deviation of the data: EDM's; for all kinds, of EDM's
                              // loss weight
    double sigma_min, sigma_max;
    double p_mean, p_std;  // P_mean and P_std of training_levels
};

/// EDM's loss weight, (sigma^2 + sd^2) / (sigma sd)^2 = 1/sigma^2 + 1/sd^2, [N]: for training the
/// teacher, TSM and the fake score (DMD2).
Tensor edm_loss_weight(const Tensor& sigma, double sigma_data);

/// `per_sample` [N] reshaped to broadcast against `like` [N,...].
Tensor expand_like(const Tensor& per_sample, const Tensor& like);

}  // namespace atelier::diffusion
