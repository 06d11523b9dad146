#include "atelier/inference/generator.h"

#include <charconv>
#include <cmath>
#include <map>
#include <sstream>
#include <tuple>
#include <utility>

#include "atelier/backends/torch/deterministic.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/schema.h"
#include "atelier/core/signals.h"
#include "atelier/models/prompt_encoder.h"

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

void check_classes(const std::vector<std::int64_t>& requested, std::int64_t classes) {
    for (const std::int64_t c : requested) {
        if (c < 0 || c >= classes)
            throw core::UsageError(
                fmt::format("class {} is out of range; this model knows 0 to {}", c, classes - 1));
    }
}

std::vector<Draw> draws_of(const SampleRequest& request) {
    std::vector<Draw> draws;
    for (std::size_t i = 0; i < request.numbers.size(); ++i)
        draws.push_back({request.seed, request.numbers[i], request.classes[i]});
    return draws;
}

class SingleModel : public Generator {
public:
    SingleModel(models::Model model, Sampling sampling, const Engine& engine)
        : ready_(std::move(model), sampling, engine),
          prior_(prior_of(ready_.model)),
          partition_(whole_partition(prior_.classes())),
          sampling_(sampling),
          engine_(engine_for(engine, ready_.model)) {}

    Tensor draw(const SampleRequest& request) override {
        check_classes(request.classes, prior_.classes());
        return ready_.draw(draws_of(request));
    }
    const data::SampleSpec& spec() const override { return ready_.model.spec; }
    const conditions::Prior& prior() const override { return prior_; }
    const conditions::Partition& partition() const override { return partition_; }
    std::string hash_of_student(std::int64_t) override { return ready_.hash(); }
    const Sampling& sampling() const override { return sampling_; }
    const Engine& engine() const override { return engine_; }
    std::int64_t parameters_of_student(std::int64_t) override {
        return ready_.model.parameter_count();
    }

private:
    ReadyModel ready_;
    conditions::Prior prior_;
    conditions::Partition partition_;
    Sampling sampling_;
    Engine engine_;
};

/// Loads students on first use. A mixed batch is grouped by student and reassembled in order.
class RoutedEnsemble : public Generator {
public:
    RoutedEnsemble(models::Ensemble ensemble, const Engine& engine)
        : ensemble_(std::move(ensemble)),
          router_(ensemble_.partition),
          loaded_(ensemble_.students.size()),
          engine_(engine_for(engine, models::read_model_config(ensemble_.students.front()))) {}

    Tensor draw(const SampleRequest& request) override {
        check_classes(request.classes, ensemble_.partition.classes());
        std::vector<std::int64_t> shape{static_cast<std::int64_t>(request.numbers.size())};
        shape.insert(shape.end(), ensemble_.spec.shape.begin(), ensemble_.spec.shape.end());
        Tensor all = at::empty(shape, at::kFloat);
        const std::vector<Draw> draws = draws_of(request);
        for (const conditions::Group& group :
             conditions::group_by_student(router_, request.classes)) {
            std::vector<Draw> group_draws;
            for (const std::int64_t position : group.positions)
                group_draws.push_back(draws[static_cast<std::size_t>(position)]);
            all.index_copy_(0, at::tensor(group.positions, at::kLong),
                            student(group.student).draw(group_draws));
        }
        return all;
    }
    const data::SampleSpec& spec() const override { return ensemble_.spec; }
    const conditions::Prior& prior() const override { return ensemble_.prior; }
    const conditions::Partition& partition() const override { return ensemble_.partition; }
    std::string hash_of_student(std::int64_t k) override { return student(k).hash(); }
    const Sampling& sampling() const override { return sampling_; }
    const Engine& engine() const override { return engine_; }
    std::int64_t parameters_of_student(std::int64_t k) override {
        return student(k).model.parameter_count();
    }

private:
    const ReadyModel& student(std::int64_t k) {
        auto& slot = loaded_[static_cast<std::size_t>(k)];
        if (!slot) {
            slot = std::make_unique<ReadyModel>(
                models::read_student(ensemble_, k, engine_.device, engine_.weights()), sampling_,
                engine_, ensemble_.partition.cell(k));
        }
        return *slot;
    }

    models::Ensemble ensemble_;
    conditions::Router router_;
    std::vector<std::unique_ptr<ReadyModel>> loaded_;
    Sampling sampling_;
    Engine engine_;
};

}  // namespace

Sampling::Method sampling_method(const std::string& name) {
    const auto found = methods().find(name);
    if (found != methods().end()) return found->second;
    std::vector<std::string> known;
    for (const auto& [method_name, method] : methods()) known.push_back(method_name);
    if (name == "dpm++")
        throw core::UsageError(
            "dpm++ is for diffusers directories; models and teachers take one-step, heun, ddim and "
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
    return "";
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
    const std::map<std::string, double*> settings{{"S_churn", &churn.s_churn},
                                                  {"S_min", &churn.s_min},
                                                  {"S_max", &churn.s_max},
                                                  {"S_noise", &churn.s_noise}};
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

SampleRequest sample_request(std::int64_t count, std::uint64_t seed,
                             const std::vector<std::int64_t>& classes,
                             const conditions::Prior& prior) {
    constexpr std::int64_t max_count = 100'000'000;
    if (count < 1 || count > max_count)
        throw core::UsageError(
            fmt::format("{} samples cannot be drawn; request 1 to {}", count, max_count));
    SampleRequest request{seed, {}, {}};
    for (std::int64_t i = 0; i < count; ++i) {
        request.numbers.push_back(i);
        request.classes.push_back(
            classes.empty() ? conditions::draw_class(prior, seed, static_cast<std::uint64_t>(i))
                            : classes[static_cast<std::size_t>(i) % classes.size()]);
    }
    return request;
}

std::unique_ptr<Generator> open_generator(const std::filesystem::path& path,
                                          const std::optional<Sampling>& sampling,
                                          const Engine& engine) {
    models::reject_prompts(path);
    if (models::is_ensemble_directory(path)) {
        if (sampling && sampling->method != Sampling::Method::one_step) {
            throw core::UsageError(path.string() +
                                   ": an ensemble's students take one step; --sampler " +
                                   name_of(sampling->method) + " is for the teacher");
        }
        return std::make_unique<RoutedEnsemble>(models::read_ensemble(path), engine);
    }
    models::Model model = models::read_model(path, engine.device, engine.weights());
    const Sampling defaults = default_sampling(model);
    return std::make_unique<SingleModel>(std::move(model), sampling.value_or(defaults), engine);
}

std::int64_t Generator::student_of(std::int64_t class_id) const {
    check_classes({class_id}, partition().classes());
    return partition().owner[static_cast<std::size_t>(class_id)];
}

Tensor draw_all(Generator& generator, const SampleRequest& request,
                const std::function<void(std::int64_t done)>& on_progress) {
    const backends::Deterministic deterministic;
    const auto count = static_cast<std::int64_t>(request.numbers.size()),
               batch_size = largest_batch * generator.students();
    std::vector<Tensor> batches;
    for (std::int64_t first = 0; first < count; first += batch_size) {
        if (core::stop_requested())
            throw core::Interrupted("interrupted while sampling; nothing was written");
        const std::int64_t end = std::min(first + batch_size, count);
        batches.push_back(
            generator.draw({request.seed,
                            {request.numbers.begin() + first, request.numbers.begin() + end},
                            {request.classes.begin() + first, request.classes.begin() + end}}));
        if (on_progress) on_progress(end);
    }
    return at::cat(batches);
}

conditions::Partition whole_partition(std::int64_t classes) {
    return {.students = 1,
            .method = "whole",
            .owner = std::vector<std::int64_t>(static_cast<std::size_t>(classes), 0)};
}

std::string hash_of(Generator& generator) {
    std::vector<std::string> hashes;
    for (std::int64_t k = 0; k < generator.students(); ++k)
        hashes.push_back(generator.hash_of_student(k));
    return hash_of(hashes);
}

std::string hash_of(std::span<const std::string> hashes) {
    if (hashes.size() == 1) return hashes.front();
    std::string all;
    for (const std::string& hash : hashes) all += hash;
    return core::sha256(all);
}

}  // namespace atelier::inference
