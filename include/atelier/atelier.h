#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#define ATELIER_API __attribute__((visibility("default")))

/// Atelier as a C++ library: open a model or an ensemble of one-step students, draw samples, ask
/// who owns a condition, measure, and train a config. C++17, standard types only.
///
///     atelier::Pipeline students("models/fashion-mnist/k4");
///     atelier::Samples some = students.sample({"sneaker", "bag"}, 8, /*seed=*/1);
///     atelier::write_png("eight.png", some);
namespace atelier {

/// The only exception that this library throws: one line with what went wrong, where, and how to
/// fix it. (`std::bad_alloc` becomes one, too.)
class ATELIER_API Error : public std::runtime_error {
public:
    enum class Kind {
        failed,       ///< a file, a device or a computation
        usage,        ///< an argument or a config is wrong
        interrupted,  ///< cancelled; what was finished is on disk
    };
    /// `message` is what() returns.
    Error(Kind kind, const std::string& message);
    ~Error() override;
    /// Who can do something about it.
    Kind kind() const noexcept { return kind_; }

private:
    Kind kind_;
};

/// How a model computes. The defaults suit CPUs.
struct Options {
    /// "native" (Atelier's own kernels, fp32), "openvino", "torch", or "auto": on GPUs torch, on
    /// CPUs native for small networks in fp32, else "openvino".
    std::string engine = "auto";
    /// Of matrix products and convolutions: "fp32", "bf16", "int8", or "auto": int8 for quantised
    /// models, else fp32.
    std::string precision = "auto";
    /// "cpu", "cuda" or "cuda:N".
    std::string device = "cpu";
    /// Threads of LibTorch and of the native engine, for the whole process; 0: as they are, at
    /// most as many as this process has processors.
    int threads = 0;
    /// "one-step", "heun", "ddim", "stochastic" ("dpm++", "ddim" and "euler" for diffusers
    /// directories). Empty: one step for students, 18 Heun steps for teachers, 25 of dpm++ for
    /// Stable Diffusion 1 and 2, what the scheduler names for other diffusers directories.
    std::string sampler;
    /// Steps of `sampler`, 1 to 10000; none: the sampler's own number.
    std::optional<std::int64_t> steps;
    /// Classifier-free guidance of teachers that read prompts (1: none) and of diffusers
    /// directories (without: that of diffusers' pipeline); students have theirs built in.
    std::optional<double> guidance;
};

/// What a sample shows: nothing in particular (the model's prior decides), a class by its id (from
/// 0), or text: a class by its name or its id in digits, or a prompt for models that read prompts.
using Condition = std::variant<std::monostate, std::int64_t, std::string>;

/// What a model is.
struct Information {
    enum class Samples { images, points };
    enum class Conditions { none, classes, prompts };
    Samples samples = Samples::images;
    Conditions conditions = Conditions::none;
    /// Of images, in pixels; channels is 1 (grey) or 3 (RGB). 0 for points.
    std::int64_t height = 0, width = 0, channels = 0;
    /// Of points; 0 for images.
    std::int64_t dimensions = 0;
    /// K: networks among which the conditions are divided; 1 for a single model.
    std::int64_t students = 1;
    /// The number of classes (1 for an unconditional model, 0 for models that read prompts), and
    /// their names: one per class, or none.
    std::int64_t classes = 0;
    std::vector<std::string> class_names;
    /// As they were chosen: Options' words without "auto".
    std::string engine, precision, sampler;
    /// Network evaluations per sample.
    std::int64_t evaluations = 1;
};

/// 8-bit pixels, height x width x channels, row by row; `channels` is 1 (grey) or 3 (RGB).
struct Image {
    std::int64_t height = 0, width = 0, channels = 1;
    std::vector<std::uint8_t> pixels;
};

/// Samples in the order in which they were asked for: images or points.
struct Samples {
    std::int64_t count = 0;
    std::int64_t height = 0, width = 0, channels = 0;  ///< of images; 0 for points
    std::vector<std::uint8_t> pixels;  ///< count x height x width x channels; empty for points
    std::int64_t dimensions = 0;       ///< of points; 0 for images
    std::vector<float> points;         ///< count x dimensions; empty for images
    /// What each sample shows: its class's id, or its prompt; one per sample.
    std::vector<Condition> conditions;

    /// A copy of image `i`, from 0. Throws Error when there is no such image.
    ATELIER_API Image image(std::int64_t i) const;
};

/// Against what a model is measured, beyond the data's path.
struct EvaluationOptions {
    /// "train" or "test", of data that have both.
    std::string split = "test";
    /// Directory of the classifier in whose features images are compared; empty: pixels are.
    std::string classifier;
    /// Weights of Inception-v3 instead, for FID and its like; empty: none.
    std::string inception;
    /// Metrics are means over the seeds `seed`, ..., `seed` + `seeds` - 1; 1 or more.
    std::int64_t seeds = 1;
};

/// A model directory, an ensemble directory, a run (its ensemble) or a diffusers directory, opened
/// for sampling. Movable, not copyable. Several threads may use one object: their calls run one
/// after the other. Sample i depends on the seed, i, its condition and the weights alone, and has
/// the same bytes as the one that the program `atelier` draws on the same machine.
class ATELIER_API Pipeline {
public:
    /// Opens `path`. Students of an ensemble are loaded on first use. Throws Error on a path that
    /// holds no model and on options that do not fit it.
    explicit Pipeline(const std::filesystem::path& path, const Options& options = {});
    ~Pipeline();
    Pipeline(Pipeline&& other) noexcept;
    Pipeline& operator=(Pipeline&& other) noexcept;

    /// What was opened.
    const Information& information() const;

    /// Draws the samples `first`, ..., `first` + `count` - 1 of `seed`. Sample i shows
    /// `conditions[i % conditions.size()]`; without conditions its class is drawn from the training
    /// prior by `seed` and i (models that read prompts need one). `count` 0: one sample per
    /// condition, or one. Throws Error on conditions that the model does not know, on a `count` or
    /// `first` that is negative, and on more than 100 million samples.
    Samples sample(const std::vector<Condition>& conditions = {}, std::int64_t count = 0,
                   std::uint64_t seed = 0, std::int64_t first = 0);

    /// The student that owns `condition`, 0 to K-1. Throws Error on a condition that the model does
    /// not know, and on std::monostate.
    std::int64_t route(const Condition& condition);

    /// Draws `count` samples (2 or more) and measures them against held-out data: a path in any
    /// format that Atelier reads, or "toy:...". Returns the metrics by name, as evaluation.json has
    /// them; docs/evaluation.md says what they mean. Throws Error on data that do not fit.
    std::map<std::string, double> evaluate(const std::string& data, std::int64_t count = 10000,
                                           std::uint64_t seed = 0,
                                           const EvaluationOptions& options = {});

private:
    class Implementation;
    std::unique_ptr<Implementation> implementation_;
};

/// Opens a model: Pipeline(path, options).
inline Pipeline load(const std::filesystem::path& path, const Options& options = {}) {
    return Pipeline(path, options);
}

/// Writes a PNG atomically. Throws Error when the image's sizes and pixels do not match, or the
/// file cannot be written.
ATELIER_API void write_png(const std::filesystem::path& path, const Image& image);

/// Writes images as one grid of `columns` per row (0: about square). Throws Error for points, for
/// no images, and when the file cannot be written.
ATELIER_API void write_png(const std::filesystem::path& path, const Samples& samples,
                           std::int64_t columns = 0);

/// How far a task within a run is.
struct Progress {
    std::string task;  ///< for people, e.g. "student 2 dm"
    std::int64_t done = 0, total = 0;
    std::string unit;  ///< what is counted, e.g. "steps"
    std::string note;  ///< for people, e.g. the loss; may be empty
};

/// What a program hears of a training run, and how it ends one.
struct TrainingOptions {
    /// Called on train()'s thread, after every step, so it should return soon; none: nothing.
    std::function<void(const Progress&)> progress;
    /// Asked on train()'s thread, after every step: true ends the run with a checkpoint.
    std::function<bool()> cancelled;
    /// Also write log lines to standard error. The run directory has them in log.txt in any case.
    bool verbose = false;
};

/// Makes every missing stage of a run, as `atelier run` does: teacher, partition, pairs, students,
/// ensemble, evaluation, report. Safe to call again: it goes on where it was.
///
/// `config` is a TOML file, `overrides` are "key=value" pairs that take its place, e.g.
/// "output=runs/mine". Students are trained one after the other in this process
/// (students.parallel = 1). Returns the run's directory, whose `ensemble` Pipeline opens. Throws
/// Error; its kind is `interrupted` when `cancelled` returned true.
ATELIER_API std::filesystem::path train(const std::string& config,
                                        const std::vector<std::string>& overrides = {},
                                        const TrainingOptions& options = {});

/// The library's version, e.g. "0.1.0".
ATELIER_API const char* version() noexcept;

}  // namespace atelier
