#include "atelier/diffusion/ddpm_schedule.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>

#include "atelier/core/error.h"

namespace atelier::diffusion {

namespace {

using Times = std::vector<std::int64_t>;

Tensor betas_of(const core::JsonObject& config, std::int64_t steps) {
    const std::string kind = config.text_or("beta_schedule", "linear");
    const double first = config.number_or("beta_start", 0.0001, 0, 1),
                 last = config.number_or("beta_end", 0.02, 0, 1);
    if (kind == "linear") return at::linspace(first, last, steps, at::kFloat);
    if (kind == "scaled_linear")
        return at::linspace(std::sqrt(first), std::sqrt(last), steps, at::kFloat).square();
    if (kind != "squaredcos_cap_v2")
        core::fail(
            "{}: \"beta_schedule\" is \"{}\"; supported are linear, scaled_linear and "
            "squaredcos_cap_v2",
            config.where(), kind.substr(0, 100));
    std::vector<double> betas;
    const auto bar = [](double t) {
        return std::pow(std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2), 2);
    };
    for (std::int64_t i = 0; i < steps; ++i) {
        const auto count = static_cast<double>(steps), at = static_cast<double>(i);
        betas.push_back(std::min(1 - bar((at + 1) / count) / bar(at / count), 0.999));
    }
    return at::tensor(betas, at::kDouble).to(at::kFloat);
}

void reject_unless(const core::JsonObject& config, const std::string& key,
                   std::initializer_list<nlohmann::json> supported) {
    if (!config.has(key) || config.json().at(key).is_null() ||
        std::ranges::find(supported, config.json().at(key)) != supported.end())
        return;
    core::fail("{}: \"{}\" is {}; that is not supported", config.where(), key,
               config.json().at(key).dump().substr(0, 100));
}

bool flag(const core::JsonObject& config, const std::string& key, bool fallback) {
    if (!config.has(key)) return fallback;
    if (!config.json().at(key).is_boolean())
        core::fail("{}: \"{}\" must be true or false", config.where(), key);
    return config.json().at(key).get<bool>();
}

/// Rounds half to even, as numpy does.
std::int64_t rounded(double value) { return static_cast<std::int64_t>(std::nearbyint(value)); }

Times checked(const DdpmSchedule& schedule, std::int64_t count, Times times) {
    const bool fits =
        std::ranges::all_of(times, [&](std::int64_t t) { return t >= 0 && t < schedule.steps(); });
    if (!fits || std::ranges::adjacent_find(times, std::ranges::less_equal()) != times.end()) {
        throw core::UsageError(fmt::format(
            "--steps: {} steps do not fit the {} that the model was trained with; take fewer",
            count, schedule.steps()));
    }
    return times;
}

void check_count(const DdpmSchedule& schedule, std::int64_t count) {
    if (count < 1 || count > schedule.steps())
        throw core::UsageError(fmt::format("--steps: must be from 1 to {}", schedule.steps()));
}

Times trailing(const DdpmSchedule& schedule, std::int64_t count) {
    Times times;
    const double total = static_cast<double>(schedule.steps()),
                 ratio = total / static_cast<double>(count);
    for (std::int64_t i = 0; i < count; ++i)
        times.push_back(rounded(total - static_cast<double>(i) * ratio) - 1);
    return times;
}

/// times[i] = of(count - 1 - i)
template <class Of>
Times reversed(std::int64_t count, Of of) {
    Times times;
    for (std::int64_t i = count - 1; i >= 0; --i) times.push_back(of(i));
    return times;
}

/// Estimates of x_0 and of the noise.
struct Estimates {
    Tensor clean, noise;
};

Estimates estimates(const DdpmSchedule& schedule, const Tensor& x, const Tensor& predicted,
                    double alpha, double sigma) {
    if (schedule.prediction == DdpmSchedule::Prediction::v_prediction)
        return {alpha * x - sigma * predicted, alpha * predicted + sigma * x};
    return {(x - sigma * predicted) / alpha, predicted};
}

/// alpha, sigma and ln(alpha / sigma).
struct Level {
    double alpha, sigma, log_ratio;
};

Level level_of(double alpha_cumprod) {
    return {std::sqrt(alpha_cumprod), std::sqrt(1 - alpha_cumprod),
            0.5 * std::log(alpha_cumprod / (1 - alpha_cumprod))};
}

}  // namespace

DdpmSchedule DdpmSchedule::of(const core::JsonObject& config) {
    reject_unless(config, "trained_betas", {});
    for (const char* key :
         {"rescale_betas_zero_snr", "thresholding", "use_karras_sigmas", "use_exponential_sigmas",
          "use_beta_sigmas", "use_flow_sigmas", "euler_at_final", "use_lu_lambdas"})
        reject_unless(config, key, {false});
    reject_unless(config, "algorithm_type", {"dpmsolver++"});
    reject_unless(config, "solver_type",
                  {"midpoint", "bh1",
                   "bh2"});  // bh1 and bh2 are UniPC's, whose configs also work with DPM-Solver++
    reject_unless(config, "solver_order", {2});
    reject_unless(config, "final_sigmas_type", {"zero"});
    reject_unless(config, "interpolation_type", {"linear"});
    reject_unless(config, "timestep_type", {"discrete"});
    reject_unless(config, "lambda_min_clipped", {"-inf", -std::numeric_limits<double>::infinity()});
    DdpmSchedule schedule;
    const Tensor betas =
        betas_of(config, config.integer_or("num_train_timesteps", 1000, 1, 100'000));
    const Tensor alphas_cumprod = (1 - betas).cumprod(0).to(at::kDouble);
    schedule.alphas_cumprod.assign(
        alphas_cumprod.const_data_ptr<double>(),
        alphas_cumprod.const_data_ptr<double>() + alphas_cumprod.numel());
    if (!std::ranges::all_of(schedule.alphas_cumprod, [](double a) { return a > 0 && a < 1; }))
        core::fail("{}: the betas leave no noise or no signal at some time step", config.where());
    const std::string prediction = config.text_or("prediction_type", "epsilon");
    if (prediction != "epsilon" && prediction != "v_prediction") {
        core::fail("{}: \"prediction_type\" is \"{}\"; supported are epsilon and v_prediction",
                   config.where(), prediction.substr(0, 100));
    }
    schedule.prediction = prediction == "epsilon" ? Prediction::epsilon : Prediction::v_prediction;
    if (config.has("timestep_spacing")) {
        static const std::map<std::string, Spacing> all{
            {"leading", Spacing::leading},
            {"linspace", Spacing::linspace},
            {"trailing", Spacing::trailing},
        };
        const auto found = all.find(config.text("timestep_spacing"));
        if (found == all.end())
            core::fail("{}: \"timestep_spacing\" must be leading, linspace or trailing",
                       config.where());
        schedule.spacing = found->second;
    }
    schedule.offset = config.integer_or("steps_offset", 0, 0, 1000);
    schedule.set_alpha_to_one = flag(config, "set_alpha_to_one", true);
    if (flag(config, "clip_sample", true))
        schedule.clip = config.number_or("clip_sample_range", 1.0, 0, 1e6);
    else schedule.clip.reset();
    return schedule;
}

Times ddim_times(const DdpmSchedule& schedule, std::int64_t count) {
    check_count(schedule, count);
    const std::int64_t ratio = schedule.steps() / count;
    switch (schedule.spacing.value_or(DdpmSchedule::Spacing::leading)) {
        case DdpmSchedule::Spacing::trailing:
            return checked(schedule, count, trailing(schedule, count));
        case DdpmSchedule::Spacing::linspace: {
            const double stride = count == 1 ? 0
                                             : static_cast<double>(schedule.steps() - 1) /
                                                   static_cast<double>(count - 1);
            return checked(schedule, count, reversed(count, [&](std::int64_t i) {
                               return rounded(static_cast<double>(i) * stride);
                           }));
        }
        case DdpmSchedule::Spacing::leading:
            break;
    }
    return checked(schedule, count,
                   reversed(count, [&](std::int64_t i) { return i * ratio + schedule.offset; }));
}

Times dpm_times(const DdpmSchedule& schedule, std::int64_t count) {
    check_count(schedule, count);
    const std::int64_t ratio = schedule.steps() / (count + 1);
    switch (schedule.spacing.value_or(DdpmSchedule::Spacing::linspace)) {
        case DdpmSchedule::Spacing::trailing:
            return checked(schedule, count, trailing(schedule, count));
        case DdpmSchedule::Spacing::leading:
            return checked(schedule, count, reversed(count, [&](std::int64_t i) {
                               return (i + 1) * ratio + schedule.offset;
                           }));
        case DdpmSchedule::Spacing::linspace:
            break;
    }
    const double stride = static_cast<double>(schedule.steps() - 1) / static_cast<double>(count);
    return checked(schedule, count, reversed(count, [&](std::int64_t i) {
                       return rounded(static_cast<double>(i + 1) * stride);
                   }));
}

Tensor sample_ddim(const DdpmSchedule& schedule, const Predictor& predict, const Tensor& noise,
                   std::int64_t count) {
    Tensor x = noise;
    const std::int64_t stride = schedule.steps() / count;
    for (const std::int64_t t : ddim_times(schedule, count)) {
        const Level from = level_of(schedule.alphas_cumprod[static_cast<std::size_t>(t)]);
        const std::int64_t previous = t - stride;
        const double alpha_cumprod =
            previous >= 0 ? schedule.alphas_cumprod[static_cast<std::size_t>(previous)]
            : schedule.set_alpha_to_one ? 1.0
                                        : schedule.alphas_cumprod[0];
        Estimates predicted =
            estimates(schedule, x, predict(x, static_cast<double>(t)), from.alpha, from.sigma);
        if (schedule.clip) predicted.clean = predicted.clean.clamp(-*schedule.clip, *schedule.clip);
        x = std::sqrt(alpha_cumprod) * predicted.clean +
            std::sqrt(1 - alpha_cumprod) * predicted.noise;
    }
    return x;
}

Tensor sample_dpm(const DdpmSchedule& schedule, const Predictor& predict, const Tensor& noise,
                  std::int64_t count) {
    Tensor x = noise, previous;  // `previous`: the estimate of the preceding step
    double previous_ratio = 0;
    const Times times = dpm_times(schedule, count);
    for (std::size_t i = 0; i < times.size(); ++i) {
        const Level from = level_of(schedule.alphas_cumprod[static_cast<std::size_t>(times[i])]);
        const Tensor clean = estimates(schedule, x, predict(x, static_cast<double>(times[i])),
                                       from.alpha, from.sigma)
                                 .clean;
        if (i + 1 == times.size()) return clean;  // the last level has no noise
        const Level to = level_of(schedule.alphas_cumprod[static_cast<std::size_t>(times[i + 1])]);
        const double step = to.log_ratio - from.log_ratio;
        Tensor direction = clean;
        if (previous.defined())
            direction =
                clean + (clean - previous) * (0.5 * step / (from.log_ratio - previous_ratio));
        x = to.sigma / from.sigma * x - to.alpha * std::expm1(-step) * direction;
        previous = clean;
        previous_ratio = from.log_ratio;
    }
    return x;
}

}  // namespace atelier::diffusion
