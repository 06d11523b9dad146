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

/// Parses "one-step", "heun", "ddim" or "stochastic". Throws core::UsageError suggesting the
/// nearest name.
Sampling::Method sampling_method(const std::string& name);
std::string name_of(Sampling::Method method);
/// The method, followed by the settings of the stochastic sampler,
/// "stochastic,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003", but not its steps.
std::string name_of(const Sampling& sampling);

/// Parses the sampling options of a user; nothing when `sampler` is empty. `sampler` may contain
/// the steps and the stochastic sampler's settings: "heun:64",
/// "stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003" (those of EDM on ImageNet-64,
/// which are also the defaults). Throws core::UsageError on an unknown sampler or setting, and on
/// steps that do not apply.
std::optional<Sampling> sampling_of(const std::string& sampler,
                                    const std::optional<std::int64_t>& steps);

/// The samples to draw: for each its number under `seed` (the two determine its noise) and its
/// class.
struct SampleRequest {
    std::uint64_t seed = 0;
    std::vector<std::int64_t> numbers;
    std::vector<std::int64_t> classes;
};

/// A request for `count` samples of `seed`, numbered from 0. Their classes cycle through `classes`,
/// or are drawn from the prior when `classes` is empty. Throws core::UsageError when `count` is
/// below 1 or above 100 million.
SampleRequest sample_request(std::int64_t count, std::uint64_t seed,
                             const std::vector<std::int64_t>& classes,
                             const conditions::Prior& prior);

/// A loaded model or ensemble that draws samples by class. Each sample depends only on its seed,
/// number, class and the weights.
class Generator {
public:
    virtual ~Generator() = default;

    /// Samples in model space, [n, shape...], in the order of the request. Throws core::UsageError
    /// on a class that does not exist.
    virtual Tensor draw(const SampleRequest& request) = 0;

    virtual const data::SampleSpec& spec() const = 0;
    virtual const conditions::Prior& prior() const = 0;
    /// The owner of each class: a single model owns them all.
    virtual const conditions::Partition& partition() const = 0;
    std::int64_t students() const { return partition().students; }
    /// The student that owns a class. Throws core::UsageError when there is no such class.
    std::int64_t student_of(std::int64_t class_id) const;
    /// Hash of a student's weights.
    virtual std::string hash_of_student(std::int64_t student) = 0;
    virtual const Sampling& sampling() const = 0;
    virtual const Engine& engine() const = 0;
    /// Number of parameters of a student's network.
    virtual std::int64_t parameters_of_student(std::int64_t student) = 0;
};

/// Opens a model directory or an ensemble directory. Without `sampling`, ensembles and students
/// take one step, other models 18 Heun steps. Throws core::UsageError when `sampling` has several
/// steps for an ensemble, core::Error when there is no model.
std::unique_ptr<Generator> open_generator(const std::filesystem::path& path,
                                          const std::optional<Sampling>& sampling = std::nullopt,
                                          const Engine& engine = {});

/// Draws all of `request` in batches, deterministically (bit for bit) on GPUs as well.
/// `on_progress` is called after each batch with the number of samples drawn so far. Throws
/// core::Interrupted when a stop is requested meanwhile.
Tensor draw_all(Generator& generator, const SampleRequest& request,
                const std::function<void(std::int64_t done)>& on_progress = {});

/// The partition with a single student that owns all of `classes` classes.
conditions::Partition whole_partition(std::int64_t classes);

/// One hash of the weights of all students.
std::string hash_of(Generator& generator);

/// The same from the hashes of the students, of which there must be at least one.
std::string hash_of(std::span<const std::string> hashes);

}  // namespace atelier::inference
