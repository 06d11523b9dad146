#include "atelier/diffusion/flow_schedule.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"

namespace atelier::diffusion {

namespace {

void check_steps(std::int64_t count, std::int64_t most) {
    if (count < 1 || count > most)
        throw core::UsageError(fmt::format(
            "--steps: {} steps do not fit the {} that the model was trained with", count, most));
}

/// Rounded to float32, in which diffusers keeps levels and times.
double single(double value) { return static_cast<double>(static_cast<float>(value)); }

/// The level at a time step, linear between two of them.
double level_at(const DdpmSchedule& schedule, double time) {
    const auto level = [&](std::size_t i) {
        const double alpha = schedule.alphas_cumprod[i];
        return std::sqrt((1 - alpha) / alpha);
    };
    const double clamped = std::clamp(time, 0.0, static_cast<double>(schedule.steps() - 1));
    const auto below = static_cast<std::size_t>(clamped);
    const double part = clamped - std::floor(clamped);
    return part == 0 ? level(below) : level(below) + part * (level(below + 1) - level(below));
}

void reject(const core::JsonObject& config, const std::string& key) {
    if (!config.has(key)) return;
    const nlohmann::json& value = config.json().at(key);
    if (value.is_null() || value == false) return;
    core::fail("{}: \"{}\" is {}; that is not supported", config.where(), key,
               value.dump().substr(0, 100));
}

}  // namespace

FlowSchedule FlowSchedule::of(const core::JsonObject& config) {
    for (const char* key :
         {"use_dynamic_shifting", "invert_sigmas", "shift_terminal", "use_karras_sigmas",
          "use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling"})
        reject(config, key);
    return {config.integer_or("num_train_timesteps", 1000, 1, 100'000),
            config.number_or("shift", 1, 1e-3, 1e3)};
}

EulerLevels euler_levels(const DdpmSchedule& schedule, std::int64_t count) {
    check_steps(count, schedule.steps());
    const auto steps = static_cast<double>(schedule.steps()), n = static_cast<double>(count);
    EulerLevels found;
    for (std::int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<double>(i), back = static_cast<double>(count - 1 - i);
        double time = 0;
        switch (schedule.spacing.value_or(DdpmSchedule::Spacing::linspace)) {
            case DdpmSchedule::Spacing::linspace:
                time = count == 1 ? 0 : single(back * (steps - 1) / (n - 1));
                break;
            case DdpmSchedule::Spacing::leading:
                time = back * static_cast<double>(schedule.steps() / count) +
                       static_cast<double>(schedule.offset);
                break;
            case DdpmSchedule::Spacing::trailing:
                time = std::nearbyint(steps - at * (steps / n)) - 1;
                break;
        }
        found.times.push_back(time);
        found.levels.push_back(single(level_at(schedule, time)));
    }
    found.levels.push_back(0);
    return found;
}

EulerLevels euler_levels(const FlowSchedule& schedule, std::int64_t count) {
    check_steps(count, schedule.steps);
    const auto steps = static_cast<double>(schedule.steps);
    const auto shifted = [&](double t) {
        return schedule.shift * t / (1 + (schedule.shift - 1) * t);
    };
    // From the highest level in training to the lowest, which are shifted themselves.
    const double first = single(shifted(1)) * steps,
                 last = single(shifted(single(1 / steps))) * steps;
    EulerLevels found;
    for (std::int64_t i = 0; i < count; ++i) {
        const double part =
            count == 1 ? 0 : static_cast<double>(i) / static_cast<double>(count - 1);
        const double level = single(shifted((first + part * (last - first)) / steps));
        found.levels.push_back(level);
        found.times.push_back(single(level * steps));
    }
    found.levels.push_back(0);
    return found;
}

Tensor sample_euler(const DdpmSchedule& schedule, const Predictor& predict, const Tensor& noise,
                    std::int64_t count) {
    const auto [levels, times] = euler_levels(schedule, count);
    const bool leading = schedule.spacing == DdpmSchedule::Spacing::leading;
    const double highest = levels.front();
    Tensor x = noise * (leading ? std::sqrt(highest * highest + 1) : highest);
    for (std::size_t i = 0; i < times.size(); ++i) {
        const double level = levels[i], square = level * level + 1;
        const Tensor predicted = predict(x / std::sqrt(square), times[i]);
        // dx/dsigma, which is the noise that epsilon prediction predicts
        const Tensor derivative = schedule.prediction == DdpmSchedule::Prediction::epsilon
                                      ? predicted
                                      : (x * (level / square) + predicted / std::sqrt(square));
        x = x + (levels[i + 1] - level) * derivative;
    }
    return x;
}

Tensor sample_euler(const FlowSchedule& schedule, const Predictor& predict, const Tensor& noise,
                    std::int64_t count) {
    const auto [levels, times] = euler_levels(schedule, count);
    Tensor x = noise;
    for (std::size_t i = 0; i < times.size(); ++i)
        x = x + (levels[i + 1] - levels[i]) * predict(x, times[i]);
    return x;
}

}  // namespace atelier::diffusion
