#include "atelier/inference/sampling.h"

#include <charconv>
#include <cmath>
#include <map>
#include <sstream>
#include <tuple>
#include <utility>

#include "atelier/core/error.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/schema.h"

namespace atelier::inference {

namespace {

const std::map<std::string, Sampling::Method>& methods() {
    static const std::map<std::string, Sampling::Method> all{
        {"one-step", Sampling::Method::one_step},
        {"heun", Sampling::Method::heun},
        {"ddim", Sampling::Method::ddim},
        {"stochastic", Sampling::Method::stochastic}};
    return all;
}

/// Standard normal noise of one step, from each draw's own stream: [draws, shape of a sample].
Tensor added_noise(const char* name, std::span<const SampleRequest> requests, std::size_t step,
                   at::IntArrayRef sample) {
    std::vector<Tensor> values;
    for (const SampleRequest& request : requests) {
        core::RandomStream stream(request.seed, fmt::format("{}/{}", name, step),
                                  static_cast<std::uint64_t>(request.index));
        values.push_back(diffusion::normal_tensor(stream, sample));
    }
    return at::stack(values);
}

}  // namespace

std::int64_t Sampling::evaluations() const {
    switch (method) {
        case Method::one_step:
            return 1;
        case Method::heun:
        case Method::stochastic:
            return 2 * steps - 1;
        case Method::few_step:
        case Method::ddim:
        case Method::dpm:
        case Method::euler:
            return steps;
    }
    return 0;
}

Sampling::Method sampling_method(const std::string& name) {
    const auto found = methods().find(name);
    if (found != methods().end()) return found->second;
    std::vector<std::string> known;
    for (const auto& [method_name, method] : methods()) known.push_back(method_name);
    if (name == "dpm++" || name == "euler")
        throw core::UsageError(
            name +
            " is for diffusers directories; models and teachers take one-step, heun, ddim and "
            "stochastic");
    const std::string near = core::nearest_word(name, known);
    throw core::UsageError(
        fmt::format("there is no sampler \"{}\"; {}known are one-step, heun, ddim and stochastic",
                    name, near.empty() ? "" : "did you mean \"" + near + "\"? "));
}

std::string name_of(Sampling::Method method) {
    for (const auto& [name, known] : methods()) {
        if (known == method) return name;
    }
    if (method == Sampling::Method::few_step) return "few-step";
    return method == Sampling::Method::euler ? "euler" : "dpm++";
}

std::string name_of(const Sampling& sampling) {
    const std::string name = name_of(sampling.method);
    if (sampling.method != Sampling::Method::stochastic) return name;
    const diffusion::StochasticSampling& churn = sampling.churn;
    return fmt::format("{},S_churn={},S_min={},S_max={},S_noise={}", name, churn.s_churn,
                       churn.s_min, churn.s_max, churn.s_noise);
}

namespace {

void set_steps(Sampling& sampling, std::int64_t steps) {
    if (sampling.method == Sampling::Method::one_step)
        throw core::UsageError(
            "one-step takes a single step; steps apply to heun, ddim and stochastic");
    if (steps < 1)
        throw core::UsageError(fmt::format("{} steps are too few; at least 1 is needed", steps));
    sampling.steps = steps;
}

/// Applies one of a sampler's settings, "64" (steps) or "S_churn=40".
void apply_setting(Sampling& sampling, const std::string& sampler, const std::string& setting) {
    const auto reject = [&](const std::string& what) {
        throw core::UsageError(fmt::format("sampler \"{}\": {}", sampler, what));
    };
    const auto [key, equals, text] = [&] {
        const auto equals_at = setting.find('=');
        return std::tuple(setting.substr(0, equals_at), equals_at != std::string::npos,
                          equals_at == std::string::npos ? setting : setting.substr(equals_at + 1));
    }();
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
        reject(fmt::format("\"{}\" is not a number; write e.g. stochastic:256,S_churn=40", text));
    }
    if (!equals) {
        constexpr double max_steps = 10000;
        if (value != std::floor(value) || value > max_steps)
            reject(fmt::format("{} is not a number of steps; use 1 to {}", text, max_steps));
        return set_steps(sampling, static_cast<std::int64_t>(value));
    }
    diffusion::StochasticSampling& churn = sampling.churn;
    const std::map<std::string, double*> settings{
        {"S_churn", &churn.s_churn},
        {"S_min", &churn.s_min},
        {"S_max", &churn.s_max},
        {"S_noise", &churn.s_noise},
    };
    const auto found = settings.find(key);
    if (sampling.method != Sampling::Method::stochastic || found == settings.end()) {
        reject(
            fmt::format("there is no setting \"{}\"; the stochastic sampler has S_churn, S_min, "
                        "S_max and S_noise",
                        key));
    }
    if (value < 0) reject(fmt::format("{} is {}; it must be at least 0", key, value));
    *found->second = value;
}

}  // namespace

std::optional<Sampling> sampling_of(const std::string& sampler,
                                    const std::optional<std::int64_t>& steps) {
    if (sampler.empty()) {
        if (steps)
            throw core::UsageError("steps need a sampler; name heun, ddim or stochastic as well");
        return std::nullopt;
    }
    const auto colon = sampler.find(':');
    Sampling sampling{sampling_method(sampler.substr(0, colon))};
    const std::int64_t default_steps = std::exchange(sampling.steps, 0);
    if (colon != std::string::npos) {
        if (colon + 1 == sampler.size())
            throw core::UsageError(fmt::format(
                "sampler \"{}\": steps or settings must follow the colon, e.g. heun:64", sampler));
        std::istringstream settings(sampler.substr(colon + 1));
        for (std::string setting; std::getline(settings, setting, ',');)
            apply_setting(sampling, sampler, setting);
    }
    if (sampling.churn.s_min > sampling.churn.s_max)
        throw core::UsageError(
            fmt::format("sampler \"{}\": S_min must not be above S_max", sampler));
    if (steps && sampling.steps > 0 && *steps != sampling.steps) {
        throw core::UsageError(fmt::format(
            "sampler \"{}\" has {} steps, but {} were requested separately; give only one of them",
            sampler, sampling.steps, *steps));
    }
    if (steps) set_steps(sampling, *steps);
    if (sampling.steps == 0) sampling.steps = default_steps;
    return sampling;
}

namespace {

/// The sampler that a scheduler's class means.
Sampling::Method method_of_scheduler(const std::string& class_name) {
    if (class_name == "DDIMScheduler") return Sampling::Method::ddim;
    return class_name.starts_with("Euler") ? Sampling::Method::euler : Sampling::Method::dpm;
}

}  // namespace

Sampling diffusers_sampling(const models::DiffusersDirectory& directory, const std::string& sampler,
                            const std::optional<std::int64_t>& steps) {
    using Method = Sampling::Method;
    const bool flow = directory.family() == models::DiffusersFamily::sd3;
    std::map<std::string, Method> known{{"euler", Method::euler}};
    if (!flow) known.insert({{"ddim", Method::ddim}, {"dpm++", Method::dpm}});
    Method method = Method::euler;
    if (const auto found = known.find(sampler); found != known.end()) method = found->second;
    else if (!sampler.empty())
        throw core::UsageError(fmt::format("there is no sampler \"{}\" for this {}; known {}",
                                           sampler, directory.pipeline(),
                                           flow ? "is euler" : "are ddim, dpm++ and euler"));
    else if (directory.family() == models::DiffusersFamily::stable_diffusion) method = Method::dpm;
    else if (!flow) method = method_of_scheduler(directory.scheduler_class());
    return {method, steps.value_or(flow ? 28 : 25)};
}

Sampling default_sampling(const models::ModelCard& model) {
    if (!model.is_student()) return {Sampling::Method::heun, 18};
    if (model.steps > 1) return {Sampling::Method::few_step, model.steps};
    return {Sampling::Method::one_step};
}

Tensor noise_of(const SampleRequest& request, const std::vector<std::int64_t>& shape) {
    if (!request.noise) return diffusion::image_noise(request.seed, request.index, 1, shape);
    const GivenNoise& given = *request.noise;
    std::vector<std::int64_t> sizes{1};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    Tensor noise = at::empty(sizes, at::kFloat);
    const auto each = static_cast<std::size_t>(noise.numel()),
               first = static_cast<std::size_t>(request.index) * each;
    if (given.shape != shape)
        throw core::UsageError(fmt::format("--noise: a row is {}, the model draws {}",
                                           core::to_string(given.shape), core::to_string(shape)));
    if (first + each > given.values.size())
        throw core::UsageError(fmt::format("--noise: has {} rows; sample {} has none",
                                           given.values.size() / each, request.index));
    std::copy_n(given.values.begin() + static_cast<std::ptrdiff_t>(first), each,
                noise.mutable_data_ptr<float>());
    return noise;
}

Tensor draw_in_batches(
    std::span<const SampleRequest> requests, const std::vector<std::int64_t>& shape,
    const std::function<Tensor(const Tensor& noise, std::size_t first)>& one_batch) {
    const at::NoGradGuard no_gradients;
    std::vector<Tensor> batches;
    for (std::size_t first = 0; first < requests.size(); first += largest_batch) {
        std::vector<Tensor> noise;
        for (const SampleRequest& request : requests.subspan(
                 first, std::min<std::size_t>(largest_batch, requests.size() - first))) {
            noise.push_back(noise_of(request, shape));
        }
        batches.push_back(one_batch(at::cat(noise), first));
    }
    return at::cat(batches);
}

Tensor run_sampler(const diffusion::Denoiser& denoiser, const Sampling& sampling,
                   const diffusion::NoiseSchedule& noise, const Tensor& z,
                   const diffusion::Condition& condition, std::span<const SampleRequest> requests) {
    if (sampling.method == Sampling::Method::one_step)
        return diffusion::sample_one_step(denoiser, z, noise, condition);
    const auto step_noise = [&](const char* name) {
        return [&, name](std::size_t step) {
            return added_noise(name, requests, step, z.sizes().slice(1)).to(z.device());
        };
    };
    if (sampling.method == Sampling::Method::few_step)
        return diffusion::sample_few_steps(denoiser, z, noise, noise.student_levels(sampling.steps),
                                           condition, step_noise("few-step"));
    const std::vector<double> levels = noise.sampling_levels(sampling.steps);
    switch (sampling.method) {
        case Sampling::Method::one_step:
        case Sampling::Method::few_step:
        case Sampling::Method::dpm:
        case Sampling::Method::euler:
            break;
        case Sampling::Method::heun:
            return diffusion::sample_heun(denoiser, z, levels, condition);
        case Sampling::Method::ddim:
            return diffusion::sample_ddim(denoiser, z, levels, condition);
        case Sampling::Method::stochastic:
            return diffusion::sample_heun_stochastic(denoiser, z, levels, condition, sampling.churn,
                                                     step_noise("churn"));
    }
    return {};
}

}  // namespace atelier::inference
