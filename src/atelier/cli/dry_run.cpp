#include "atelier/cli/dry_run.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>

#include "atelier/cli/matching_settings.h"
#include "atelier/cli/preflight.h"
#include "atelier/cli/run_plan.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/distillation/distribution_matching.h"
#include "atelier/distillation/score_matching.h"
#include "atelier/inference/device.h"
#include "atelier/training/stepper.h"

namespace atelier::cli {

namespace {

constexpr double gib = 1024.0 * 1024 * 1024;
constexpr double share_of_products = 0.5;   // of matrix products' rate that a U-Net's step is taken to reach (docs/recipes.md)
constexpr double longest_try = 5;           // seconds that a step may be expected to take and still be tried
constexpr double share_for_a_try = 0.5;     // of the memory

using Clock = std::chrono::steady_clock;

double seconds_of(const std::function<void()>& work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Of the CPU's memory, what this process may take; of a CUDA device only what we are told. 0: not known.
double memory_of(const RunConfig& config, const DryRun& wishes) {
    if (wishes.device_memory_gib > 0) return wishes.device_memory_gib * gib;
    if (config.device_memory > 0) return config.device_memory * gib;
    if (config.device != "cpu") return 0;
    double memory = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
    std::ifstream limit("/sys/fs/cgroup/memory.max");
    double most = 0;
    if (limit >> most) memory = std::min(memory, most);
    return memory;
}

/// Operations a second of matrix products in the run's precision.
double measured_rate(const RunConfig& config) {
    at::NoGradGuard no_gradients;
    constexpr std::int64_t side = 1024, runs = 3;
    const auto type = config.compute().type.value_or(at::kFloat);
    const at::Device device(config.device);
    const Tensor a = at::ones({side, side}, at::TensorOptions().device(device).dtype(type));
    double least = 1e9;
    for (std::int64_t i = 0; i <= runs; ++i) least = std::min(least, seconds_of([&] { at::matmul(a, a)[0][0].item<float>(); }));
    return 2.0 * side * side * side / least;
}

struct Estimate {
    double bytes = 0, bytes_otherwise = 0;  // the latter with activation checkpointing the other way round
    std::int64_t fitting = 0;               // samples at once that would fit; 0: none, or no need
    double step_seconds = std::nan("");
    std::string from;
};

models::Model fresh(const PlannedNetwork& network, at::Device device) {
    models::Model model = models::fresh_model(network.config, 0);
    model.parameters = model.parameters.to(device);
    return model;
}

/// The seconds of one step of a stage on noise, after one that is not counted.
class Trial {
public:
    Trial(const RunConfig& config, const RunPlan& plan, const PlannedStage& stage)
        : config_(config), stage_(stage), device_(config.device), teacher_(fresh(plan.networks.front(), device_)),
          student_(fresh(plan.networks[stage.network], device_)), classes_(plan.label_width) {
        if (const auto type = config.compute().type) teacher_.parameters = teacher_.parameters.with_matrices_as(*type);
    }

    double seconds() {
        return stage_.name == "teacher" || stage_.name == "tsm" ? of_score_matching() : of_matching();
    }

private:
    double of(distillation::Stage& stage) const {
        training::Stepper stepper(stage);
        stepper.step(0);
        if (core::stop_requested()) throw core::Interrupted("interrupted; nothing was written");
        return seconds_of([&] { stepper.step(1); });
    }

    distillation::BatchSource noise() const {
        return [this](std::int64_t step) {
            std::vector<std::int64_t> labels;
            for (std::int64_t i = 0; i < stage_.batch; ++i) labels.push_back(i % std::max<std::int64_t>(1, classes_));
            return distillation::LabelledBatch{diffusion::image_noise(1, step * stage_.batch, stage_.batch, student_.network.data_shape), labels};
        };
    }

    double of_score_matching() {
        const auto by = teacher_.denoiser(config_.compute());
        const bool tsm = stage_.name == "tsm";
        distillation::ScoreMatching matching(student_.network, student_.parameters, tsm ? &by : nullptr, noise(),
                                             {.steps = 2, .scheme = student_.scheme, .range = student_.range, .compute = config_.compute(), .conditions = conditions(),
                                              .batch = stage_.batch, .micro_batch = stage_.micro_batch, .stream = "dry-run"});
        return of(matching);
    }

    double of_matching() {
        const MatchingConfig& from = stage_.name == "adm" ? config_.adm : config_.dm;
        ops::Parameters fake = student_.parameters.clone();
        if (stage_.name == "adm") fake.merge(distillation::fresh_head(student_.network, 0).to(device_), "");
        distillation::MatchingSettings settings = matching_settings(config_, stage_.name, student_);
        settings.steps = 2;
        settings.stream = "dry-run";
        const auto pairs = [this, real = noise()](std::int64_t step) {
            const distillation::LabelledBatch batch = real(step);
            return distillation::PairBatch{batch.samples, batch.samples, batch.labels};
        };
        const auto by = teacher_.denoiser(config_.compute());
        const auto classes = static_cast<std::size_t>(std::max<std::int64_t>(1, classes_));
        distillation::DistributionMatching matching({student_.network, student_.parameters, student_.network, fake, by,
                                                     {std::vector<double>(classes, 1.0)}, noise(), pairs, regression(from), conditions()}, settings);
        return of(matching);
    }

    /// Noise in place of what captions say, where the network reads the states of a text.
    std::optional<diffusion::ConditionTable> conditions() const {
        const networks::Network& network = student_.network;
        if (network.tokens == 0) return std::nullopt;
        const Tensor rows = diffusion::image_noise(2, 0, classes_ + 1, {network.tokens, network.classes});
        return diffusion::ConditionTable::embeddings(rows.narrow(0, 0, classes_), rows[classes_]);
    }

    /// Where the loss's weights are not there yet, a cheaper one stands in.
    distillation::RegressionLoss regression(const MatchingConfig& from) const {
        try {
            return regression_loss(config_, from, config_.probe.classifier.empty() ? config_.evaluation.classifier : config_.probe.classifier, device_);
        } catch (const core::Error&) {
            return distillation::pseudo_huber;
        }
    }

    const RunConfig& config_;
    const PlannedStage& stage_;
    at::Device device_;
    models::Model teacher_, student_;
    std::int64_t classes_;
};

/// The most samples at once, of the batch halved again and again, that fit.
std::int64_t fitting(const PlannedStage& stage, double own, double memory, bool recompute) {
    for (std::int64_t n = stage.micro_batch; n >= 1; n /= 2) {
        if (own + stage.bytes(n, recompute) <= memory) return n;
    }
    return 0;
}

class Estimator {
public:
    Estimator(const RunConfig& config, const RunPlan& plan, const DryRun& wishes)
        : config_(config), plan_(plan), memory_(memory_of(config, wishes)), own_(own_bytes(conditions_of(config, false))) {
        const bool here = inference::has_device(config.device);
        if (wishes.tflops > 0) {
            rate_ = wishes.tflops * 1e12;
            rate_words_ = fmt::format("{} TFLOP/s, as told", wishes.tflops);
        } else if (here) {
            at::set_num_threads(static_cast<int>(config.threads));
            rate_ = share_of_products * measured_rate(config);
            rate_words_ = fmt::format("{:.3g} TFLOP/s, half of what matrix products reach here", rate_ / 1e12);
            may_try_ = true;
        } else {
            rate_words_ = fmt::format("no device {} here, so times are not estimated; give --tflops", config.device);
        }
    }

    double memory() const { return memory_; }
    const std::string& rate_words() const { return rate_words_; }

    Estimate of(const PlannedStage& stage) const {
        Estimate estimate;
        const bool recompute = config_.activation_checkpointing;
        estimate.bytes = own_ + stage.bytes(stage.micro_batch, recompute);
        estimate.bytes_otherwise = own_ + stage.bytes(stage.micro_batch, !recompute);
        if (memory_ > 0 && estimate.bytes > memory_) estimate.fitting = fitting(stage, own_, memory_, recompute);
        if (rate_ > 0) estimate.step_seconds = stage.flops / rate_;
        estimate.from = "work and rate";
        const bool fits = estimate.bytes < share_for_a_try * memory_;
        if (may_try_ && fits && estimate.step_seconds < longest_try) {
            at::set_num_threads(static_cast<int>(stage.name == "teacher" ? config_.threads : config_.students.threads));
            estimate.step_seconds = Trial(config_, plan_, stage).seconds();
            estimate.from = "a step, measured";
        }
        return estimate;
    }

private:
    const RunConfig& config_;
    const RunPlan& plan_;
    double memory_, own_, rate_ = 0;
    std::string rate_words_;
    bool may_try_ = false;
};

nlohmann::json number_or_null(double value) { return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(); }

nlohmann::json json_of(const RunPlan& plan, const std::vector<Estimate>& estimates, const RunConfig& config, const Estimator& estimator) {
    nlohmann::json networks = nlohmann::json::array(), stages = nlohmann::json::array();
    for (const PlannedNetwork& network : plan.networks) {
        networks.push_back({{"who", network.who}, {"architecture", network.network.architecture}, {"parameters", network.parameters}, {"flops", network.flops}});
    }
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
        const PlannedStage& stage = plan.stages[i];
        const Estimate& estimate = estimates[i];
        const double with = config.activation_checkpointing ? estimate.bytes : estimate.bytes_otherwise;
        stages.push_back({{"stage", stage.name}, {"who", plan.networks[stage.network].who}, {"times", stage.times}, {"steps", stage.steps},
                          {"batch", stage.batch}, {"micro_batch", stage.micro_batch}, {"fake_updates", stage.fake_updates}, {"real_images", stage.real_images},
                          {"generated_images", stage.generated_images}, {"flops_a_step", stage.flops}, {"memory_bytes", estimate.bytes},
                          {"memory_bytes_with_activation_checkpointing", with},
                          {"memory_bytes_without_activation_checkpointing", config.activation_checkpointing ? estimate.bytes_otherwise : estimate.bytes},
                          {"seconds_a_step", number_or_null(estimate.step_seconds)}, {"seconds_from", estimate.from},
                          {"seconds", number_or_null(estimate.step_seconds * static_cast<double>(stage.steps * stage.times))}});
    }
    return {{"data", plan.data_words}, {"data_shape", plan.form.shape}, {"classes", plan.classes}, {"condition", plan.captions ? "text" : plan.classes > 0 ? "class" : "none"},
            {"label_width", plan.label_width}, {"samples", plan.samples}, {"teacher", plan.teacher_words},
            {"students", config.partition.students}, {"device", config.device}, {"device_memory_bytes", estimator.memory()},
            {"precision", config.precision}, {"activation_checkpointing", config.activation_checkpointing}, {"rate", estimator.rate_words()},
            {"networks", networks}, {"stages", stages}};
}

std::string words_of_count(double count) {
    for (const auto& [size, letter] : {std::pair{1e18, 'E'}, {1e15, 'P'}, {1e12, 'T'}, {1e9, 'G'}, {1e6, 'M'}, {1e3, 'k'}}) {
        if (count >= size) return fmt::format("{:.4g} {}", count / size, letter);
    }
    return fmt::format("{:.4g} ", count);
}

std::string images_words(double count) { return count > 0 ? words_of_count(count) : "none"; }

/// What the networks are told, as people call it.
std::string condition_words(const RunPlan& plan) {
    if (plan.captions) return fmt::format("captions embedded in {} values", plan.label_width);
    return plan.classes > 0 ? fmt::format("{} classes", plan.classes) : "no labels";
}

/// "81000 generator updates", "400000 steps".
std::string length_words(const PlannedStage& stage) {
    return fmt::format("{} {}", stage.steps, stage.fake_updates > 0 ? "generator updates" : "steps");
}

/// The work of each student's stages, by the network that the students share.
std::string work_per_student(const RunPlan& plan) {
    std::map<std::size_t, double> work;
    for (const PlannedStage& stage : plan.stages) {
        if (stage.network > 0) work[stage.network] += stage.flops * static_cast<double>(stage.steps);
    }
    std::string words;
    for (const auto& [network, flops] : work) {
        words += fmt::format("{}{}FLOP per student", words.empty() ? "" : ", ", words_of_count(flops));
        if (work.size() > 1) words += fmt::format(" ({})", plan.networks[network].who);
    }
    return words;
}

void print(const RunPlan& plan, const std::vector<Estimate>& estimates, const RunConfig& config, const Estimator& estimator) {
    const bool latent = plan.form.kind == models::DataForm::Kind::latent;
    std::cout << fmt::format("data      {}; {} {}, {}\nteacher   {}\n", plan.data_words,
                             latent ? "latents" : "shape", core::to_string(plan.form.shape),
                             condition_words(plan), plan.teacher_words);
    std::cout << fmt::format("device    {}{}, precision {}, activation checkpointing {}\n", config.device,
                             estimator.memory() > 0 ? fmt::format(" with {:.4g} GiB", estimator.memory() / gib) : ", memory not known (--device-memory)", config.precision,
                             config.activation_checkpointing ? "on" : "off");
    std::cout << fmt::format("rate      {}\n\nnetworks\n", estimator.rate_words());
    for (const PlannedNetwork& network : plan.networks) {
        std::cout << fmt::format("  {:<22} {:<10} {:>14} parameters  {:>10}FLOP per evaluation\n", network.who, network.network.architecture,
                                 network.parameters, words_of_count(network.flops));
    }
    std::cout << "\nstages\n";
    double total = 0, work = 0;
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
        const PlannedStage& stage = plan.stages[i];
        const Estimate& estimate = estimates[i];
        const double times = static_cast<double>(stage.times), seconds = estimate.step_seconds * static_cast<double>(stage.steps);
        total += times * seconds;
        work += times * stage.flops * static_cast<double>(stage.steps);
        const bool matching = stage.fake_updates > 0;
        std::string fake_words;
        if (matching) fake_words = fmt::format("; {} of the fake score per generator update", stage.fake_updates);
        std::cout << fmt::format("  {} of {}: {} of {} samples, {} at once{}\n", stage.name,
                                 plan.networks[stage.network].who, length_words(stage), stage.batch,
                                 stage.micro_batch, fake_words);
        std::cout << fmt::format("      memory {:.2f} GiB ({:.2f} {} activation checkpointing), {}FLOP per {}\n",
                                 estimate.bytes / gib, estimate.bytes_otherwise / gib,
                                 config.activation_checkpointing ? "without" : "with",
                                 words_of_count(stage.flops), matching ? "generator update" : "step");
        std::cout << fmt::format("      images seen: {} of the data, {} generated{}\n", images_words(stage.real_images), images_words(stage.generated_images),
                                 stage.times > 1 ? fmt::format(", for each of {} students", stage.times) : "");
        if (std::isfinite(seconds)) {
            std::cout << fmt::format("      time {}{} (from {}: {:.3g} s)\n", core::duration_words(seconds), stage.times > 1 ? " per student" : "", estimate.from,
                                     estimate.step_seconds);
        }
    }
    std::cout << fmt::format("\nin all {}FLOP", words_of_count(work));
    const std::string each = work_per_student(plan);
    if (!each.empty()) std::cout << ", " << each;
    if (std::isfinite(total)) std::cout << fmt::format(", {} on one such device, students one after the other", core::duration_words(total));
    std::cout << "; probes, pairs, the network of LPIPS and evaluation not counted" << std::endl;
}

void refuse_what_does_not_fit(const RunPlan& plan, const std::vector<Estimate>& estimates, const RunConfig& config, double memory) {
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
        const PlannedStage& stage = plan.stages[i];
        const Estimate& estimate = estimates[i];
        if (memory <= 0 || estimate.bytes <= memory) continue;
        std::string remedy;
        if (estimate.fitting > 0) remedy = fmt::format("lower {}.micro_batch to {}", stage.name, estimate.fitting);
        if (!config.activation_checkpointing && estimate.bytes_otherwise <= memory) remedy += std::string(remedy.empty() ? "" : ", or ") + "set activation_checkpointing = true";
        if (remedy.empty()) remedy = "even one sample at once does not: take a smaller network, or a device with more memory";
        throw core::UsageError(fmt::format("{} of {} needs {:.1f} GiB with {} samples at once, {} has {:.1f}; {}", stage.name, plan.networks[stage.network].who,
                                           estimate.bytes / gib, stage.micro_batch, config.device, memory / gib, remedy));
    }
}

}  // namespace

void dry_run(LoadedConfig loaded, const DryRun& wishes) {
    const RunPlan plan = plan_of(loaded);
    std::shared_ptr<const data::Dataset> raw;
    if (plan.samples > 0) raw = data::open_dataset({.path = loaded.config.data_path, .split = "train", .limit = 0});
    for (const std::string& remark : check_before_training(loaded, raw.get())) core::log::warning("{}", remark);
    raw.reset();
    const Estimator estimator(loaded.config, plan, wishes);
    std::vector<Estimate> estimates;
    for (const PlannedStage& stage : plan.stages) {
        if (core::stop_requested()) throw core::Interrupted("interrupted; nothing was written");
        estimates.push_back(estimator.of(stage));
    }
    if (wishes.json) std::cout << json_of(plan, estimates, loaded.config, estimator).dump() << std::endl;
    else print(plan, estimates, loaded.config, estimator);
    refuse_what_does_not_fit(plan, estimates, loaded.config, estimator.memory());
}

}  // namespace atelier::cli
