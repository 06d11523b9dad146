#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "atelier/conditions/router.h"
#include "atelier/inference/ready_model.h"
#include "atelier/models/ensemble.h"

namespace atelier::inference {

/// "one-step", "heun", "ddim" or "stochastic". Throws core::UsageError naming the nearest.
Sampling::Method sampling_method(const std::string& name);
std::string name_of(Sampling::Method method);
/// The same with the settings of the stochastic sampler, "stochastic,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003"; without its steps.
std::string name_of(const Sampling& sampling);

/// What a user asks for: nothing when no sampler is named. `sampler` may hold the steps and the stochastic sampler's settings, "heun:64",
/// "stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003" (those of EDM on ImageNet-64, which also stand where some are left out). Throws core::UsageError
/// on an unknown sampler or setting, and on steps that nothing would take.
std::optional<Sampling> sampling_of(const std::string& sampler, const std::optional<std::int64_t>& steps);

/// What is to be drawn: for each sample its number under `seed` (its noise follows from both) and its class.
struct Wanted {
    std::uint64_t seed = 0;
    std::vector<std::int64_t> numbers;
    std::vector<std::int64_t> classes;
};

/// `count` samples of `seed`, numbered from 0. With `classes` they are repeated in order; else they are drawn from the prior. Throws
/// core::UsageError when `count` is below 1 or above 100 million.
Wanted plan(std::int64_t count, std::uint64_t seed, const std::vector<std::int64_t>& classes, const conditions::Prior& prior);

/// A model or an ensemble, ready to answer. Each sample depends on its seed, number, class and weights alone.
class Generator {
public:
    virtual ~Generator() = default;

    /// Samples in model space, [n, shape...], in the order asked for. Throws core::UsageError on a class that is not there.
    virtual Tensor draw(const Wanted& wanted) = 0;

    virtual const models::DataForm& form() const = 0;
    virtual const conditions::Prior& prior() const = 0;
    /// Who owns which class: a single model owns them all.
    virtual const conditions::Partition& partition() const = 0;
    std::int64_t students() const { return partition().students; }
    /// Which student answers for a class. Throws core::UsageError when there is no such class.
    std::int64_t student_of(std::int64_t class_id) const;
    /// Hash of the weights that answer for a class.
    virtual std::string hash_of_student(std::int64_t student) = 0;
    virtual const Sampling& sampling() const = 0;
    virtual const Engine& engine() const = 0;
    /// Number of parameters of the network that answers for a class.
    virtual std::int64_t parameters_of_student(std::int64_t student) = 0;
};

/// Opens a model directory or an ensemble directory. Without `sampling`, ensembles and students take one step, other models
/// 18 Heun steps. Throws core::UsageError when students are asked for many steps, core::Error when there is no model.
std::unique_ptr<Generator> open_generator(const std::filesystem::path& path, const std::optional<Sampling>& sampling = std::nullopt,
                                          const Engine& engine = {});

/// All of `wanted`, part by part, the same bytes every time on GPUs as well; `tell` hears how many are there. Throws core::Interrupted when a stop is
/// requested meanwhile.
Tensor draw_in_parts(Generator& generator, const Wanted& wanted, const std::function<void(std::int64_t done)>& tell = {});

/// The partition of a model that owns all of `classes` classes.
conditions::Partition whole_partition(std::int64_t classes);

/// One hash for all weights that a generator may use.
std::string hash_of(Generator& generator);

/// The same of its students' hashes, at least one.
std::string hash_of(std::span<const std::string> hashes);

}  // namespace atelier::inference
