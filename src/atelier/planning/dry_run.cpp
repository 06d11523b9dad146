#include "atelier/planning/dry_run.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/signals.h"
#include "atelier/distillation/distribution_matching.h"
#include "atelier/distillation/score_matching.h"
#include "atelier/inference/device.h"
#include "atelier/pipeline/pair_losses.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/planning/run_plan.h"
#include "atelier/training/stepper.h"

namespace atelier::planning {

namespace {

constexpr double gib = 1024.0 * 1024 * 1024;
constexpr double matmul_rate_fraction =
    0.5;  // of the rate of matrix products, assumed for a U-Net's step (docs/recipes.md)
constexpr double longest_trial_seconds = 5;    // expected for a step that is still measured
constexpr double trial_memory_fraction = 0.5;  // a step that is expected to need less is measured

using Clock = std::chrono::steady_clock;

double time_of(const std::function<void()>& work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Bytes: on a CPU what this process may use. 0: unknown.
double available_memory(const pipeline::RunConfig& config, const DryRunOptions& options) {
    if (options.device_memory_gib > 0) return options.device_memory_gib * gib;
    if (config.device_memory > 0) return config.device_memory * gib;
    if (config.device != "cpu")
        return inference::has_device(config.device) ? inference::memory_of(config.device) : 0;
    double memory = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
                    static_cast<double>(::sysconf(_SC_PAGESIZE));
    std::ifstream limit("/sys/fs/cgroup/memory.max");
    double quota = 0;
    if (limit >> quota) memory = std::min(memory, quota);
    return memory;
}

/// FLOP/s of matrix products in the run's precision.
double measure_rate(const pipeline::RunConfig& config) {
    at::NoGradGuard no_gradients;
    constexpr std::int64_t side = 1024, runs = 3;
    const auto type = config.compute().type.value_or(at::kFloat);
    const at::Device device(config.device);
    const Tensor a = at::ones({side, side}, at::TensorOptions().device(device).dtype(type));
    double least = 1e9;
    for (std::int64_t i = 0; i <= runs; ++i)
        least = std::min(least, time_of([&] { at::matmul(a, a)[0][0].item<float>(); }));
    return 2.0 * side * side * side / least;
}

struct Estimate {
    double bytes = 0,
           bytes_toggled = 0;              // the latter with activation checkpointing toggled
    std::int64_t fitting_micro_batch = 0;  // that would fit; 0: none, or not needed
    double step_seconds = std::nan("");
    std::string from;
};

models::Model random_model(const PlannedNetwork& network, at::Device device) {
    models::Model model = models::init_model(network.config, 0);
    model.parameters = model.parameters.to(device);
    return model;
}

/// Measures the seconds of one step of a stage on noise, after a warm-up step.
class Trial {
public:
    Trial(const pipeline::RunConfig& config, const RunPlan& plan, const PlannedStage& stage)
        : config_(config),
          stage_(stage),
          device_(config.device),
          teacher_(random_model(plan.networks.front(), device_)),
          student_(random_model(plan.networks[stage.network], device_)),
          classes_(plan.label_width) {
        if (const auto type = config.compute().type)
            teacher_.parameters = teacher_.parameters.cast_weights(*type);
    }

    double seconds() {
        return stage_.fake_updates == 0 ? score_matching_seconds() : distillation_seconds();
    }

private:
    double measure(distillation::Stage& stage) const {
        training::Stepper stepper(stage);
        stepper.step(0).read();
        if (core::stop_requested()) throw core::Interrupted("interrupted; nothing was written");
        return time_of([&] { stepper.step(1).read(); });
    }

    distillation::BatchSource noise() const {
        return [this](std::int64_t step) {
            std::vector<std::int64_t> labels;
            for (std::int64_t i = 0; i < stage_.batch; ++i)
                labels.push_back(i % std::max<std::int64_t>(1, classes_));
            return distillation::LabelledBatch{
                diffusion::image_noise(1, step * stage_.batch, stage_.batch,
                                       student_.network.data_shape),
                labels};
        };
    }

    double score_matching_seconds() {
        const auto teacher = teacher_.denoiser(config_.compute());
        const bool tsm = stage_.kind == pipeline::StageKind::tsm;
        distillation::ScoreMatching matching(
            {student_.network, student_.parameters, tsm ? &teacher : nullptr, noise(),
             conditions()},
            {.steps = 2, .batch = stage_.batch, .micro_batch = stage_.micro_batch}, context());
        return measure(matching);
    }

    double distillation_seconds() {
        backends::Parameters fake = student_.parameters.clone();
        if (stage_.kind == pipeline::StageKind::adm)
            fake.merge(distillation::init_head(student_.network, 0).to(device_), "");
        distillation::MatchingSettings settings = config_.matching(stage_.kind);
        settings.steps = 2;
        const auto pairs = [this, real = noise()](std::int64_t step) {
            const distillation::LabelledBatch batch = real(step);
            return distillation::PairBatch{batch.samples, batch.samples, batch.labels};
        };
        const auto teacher = teacher_.denoiser(config_.compute());
        const auto classes = static_cast<std::size_t>(std::max<std::int64_t>(1, classes_));
        distillation::DistributionMatching matching({student_.network,
                                                     student_.parameters,
                                                     student_.network,
                                                     fake,
                                                     teacher,
                                                     {std::vector<double>(classes, 1.0)},
                                                     noise(),
                                                     pairs,
                                                     pair_loss(),
                                                     conditions()},
                                                    settings, context());
        return measure(matching);
    }

    /// Noise in place of token states, for networks that attend to those.
    std::optional<diffusion::ConditionTable> conditions() const {
        const networks::Network& network = student_.network;
        if (network.tokens == 0) return std::nullopt;
        const Tensor rows =
            diffusion::image_noise(2, 0, classes_ + 1, {network.tokens, network.label_dim});
        return diffusion::ConditionTable::embeddings(rows.narrow(0, 0, classes_), rows[classes_]);
    }

    distillation::StageContext context() const {
        return {student_.noise, config_.compute(), static_cast<std::uint64_t>(config_.seed),
                "dry-run"};
    }

    /// Pseudo-Huber where the weights of the configured loss do not exist yet.
    distillation::RegressionLoss pair_loss() const {
        try {
            return pipeline::pair_loss(config_, stage_.kind,
                                       config_.probe.classifier.empty()
                                           ? config_.evaluation.classifier
                                           : config_.probe.classifier,
                                       device_);
        } catch (const core::Error&) {
            return distillation::pseudo_huber;
        }
    }

    const pipeline::RunConfig& config_;
    const PlannedStage& stage_;
    at::Device device_;
    models::Model teacher_, student_;
    std::int64_t classes_;
};

/// The largest micro-batch that fits, halving `first`; 0 where none does.
std::int64_t largest_micro_batch(const PlannedStage& stage, std::int64_t first, double base_bytes,
                                 double memory, bool recompute) {
    for (std::int64_t n = first; n >= 1; n /= 2) {
        if (base_bytes + stage.bytes(n, recompute) <= memory) return n;
    }
    return 0;
}

class Estimator {
public:
    Estimator(const pipeline::RunConfig& config, const RunPlan& plan, const DryRunOptions& options)
        : config_(config),
          plan_(plan),
          memory_(available_memory(config, options)),
          base_bytes_(own_bytes(execution_mode(config, false))) {
        const bool here = inference::has_device(config.device);
        if (options.tflops > 0) {
            rate_ = options.tflops * 1e12;
            rate_description_ = fmt::format("{} TFLOP/s, as given", options.tflops);
        } else if (here) {
            at::set_num_threads(static_cast<int>(config.threads));
            rate_ = matmul_rate_fraction * measure_rate(config);
            rate_description_ = fmt::format(
                "{:.3g} TFLOP/s, half of what matrix products reach here", rate_ / 1e12);
            may_run_trials_ = true;
        } else {
            rate_description_ = fmt::format(
                "no device {} here, so times are not estimated; give --tflops", config.device);
        }
    }

    double memory() const { return memory_; }
    const std::string& rate_description() const { return rate_description_; }

    Estimate of(const PlannedStage& stage) const {
        Estimate estimate;
        const bool recompute = config_.activation_checkpointing;
        estimate.bytes = base_bytes_ + stage.bytes(stage.micro_batch, recompute);
        estimate.bytes_toggled = base_bytes_ + stage.bytes(stage.micro_batch, !recompute);
        if (memory_ > 0 && estimate.bytes > memory_)
            estimate.fitting_micro_batch =
                largest_micro_batch(stage, stage.micro_batch, base_bytes_, memory_, recompute);
        if (rate_ > 0) estimate.step_seconds = stage.flops / rate_;
        estimate.from = "work and rate";
        const bool fits = estimate.bytes < trial_memory_fraction * memory_;
        if (may_run_trials_ && fits && estimate.step_seconds < longest_trial_seconds) {
            at::set_num_threads(static_cast<int>(stage.kind == pipeline::StageKind::teacher
                                                     ? config_.threads
                                                     : config_.students.threads));
            estimate.step_seconds = Trial(config_, plan_, stage).seconds();
            estimate.from = "a step, measured";
        }
        return estimate;
    }

private:
    const pipeline::RunConfig& config_;
    const RunPlan& plan_;
    double memory_, base_bytes_, rate_ = 0;
    std::string rate_description_;
    bool may_run_trials_ = false;
};

nlohmann::json number_or_null(double value) {
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

RankPlan ranks_of(const RunPlan& plan, const PlannedStage& stage, const Estimate& estimate,
                  const RankSettings& settings) {
    return plan_ranks(stage, plan.networks[stage.network].parameters, estimate.step_seconds,
                      settings);
}

nlohmann::json json_of(const RankPlan& ranks, std::int64_t steps) {
    return {
        {"micro_batches", ranks.micro_batches},
        {"micro_batches_of_the_busiest", ranks.of_busiest},
        {"idle", ranks.idle},
        {"even_micro_batch", ranks.even_micro_batch},
        {"bytes_a_sum", ranks.sum_bytes},
        {"sums_a_step", ranks.sums},
        {"seconds_of_sums", ranks.sum_seconds},
        {"seconds_a_step", number_or_null(ranks.step_seconds())},
        {"seconds_a_step_without_overlap", number_or_null(ranks.step_seconds_without_overlap())},
        {"seconds", number_or_null(ranks.step_seconds() * static_cast<double>(steps))}};
}

nlohmann::json json_of(const RunPlan& plan, const std::vector<Estimate>& estimates,
                       const pipeline::RunConfig& config, const Estimator& estimator,
                       const RankSettings& settings) {
    nlohmann::json networks = nlohmann::json::array(), stages = nlohmann::json::array();
    for (const PlannedNetwork& network : plan.networks) {
        networks.push_back({{"who", network.who},
                            {"architecture", network.network.architecture},
                            {"parameters", network.parameters},
                            {"flops", network.flops}});
    }
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
        const PlannedStage& stage = plan.stages[i];
        const Estimate& estimate = estimates[i];
        const double with =
            config.activation_checkpointing ? estimate.bytes : estimate.bytes_toggled;
        stages.push_back(
            {{"stage", stage.name()},
             {"who", plan.networks[stage.network].who},
             {"times", stage.times},
             {"steps", stage.steps},
             {"batch", stage.batch},
             {"micro_batch", stage.micro_batch},
             {"fake_updates", stage.fake_updates},
             {"real_images", stage.real_images},
             {"generated_images", stage.generated_images},
             {"flops_a_step", stage.flops},
             {"memory_bytes", estimate.bytes},
             {"memory_bytes_with_activation_checkpointing", with},
             {"memory_bytes_without_activation_checkpointing",
              config.activation_checkpointing ? estimate.bytes_toggled : estimate.bytes},
             {"seconds_a_step", number_or_null(estimate.step_seconds)},
             {"seconds_from", estimate.from},
             {"seconds",
              number_or_null(estimate.step_seconds * static_cast<double>(stage.all_steps()))}});
        if (!stage.steps_of_each.empty()) stages.back()["steps_of_each"] = stage.steps_of_each;
        if (settings.ranks > 1)
            stages.back()["ranks"] =
                json_of(ranks_of(plan, stage, estimate, settings), stage.steps);
    }
    const nlohmann::json budgets = plan.shares ? nlohmann::json(*plan.shares) : nlohmann::json();
    return {{"data", plan.data_description},
            {"data_shape", plan.spec.shape},
            {"classes", plan.classes},
            {"condition", plan.captions      ? "text"
                          : plan.classes > 0 ? "class"
                                             : "none"},
            {"label_width", plan.label_width},
            {"samples", plan.samples},
            {"teacher", plan.teacher_description},
            {"students", config.partition.students},
            {"budgets", budgets},
            {"device", config.device},
            {"device_memory_bytes", estimator.memory()},
            {"precision", config.precision},
            {"activation_checkpointing", config.activation_checkpointing},
            {"rate", estimator.rate_description()},
            {"ranks", settings.ranks},
            {"networks", networks},
            {"stages", stages}};
}

std::string format_count(double count) {
    for (const auto& [size, letter] :
         {std::pair{1e18, 'E'}, {1e15, 'P'}, {1e12, 'T'}, {1e9, 'G'}, {1e6, 'M'}, {1e3, 'k'}}) {
        if (count >= size) return fmt::format("{:.4g} {}", count / size, letter);
    }
    return fmt::format("{:.4g} ", count);
}

std::string format_images(double count) { return count > 0 ? format_count(count) : "none"; }

/// The networks' conditioning, for people.
std::string describe_conditioning(const RunPlan& plan) {
    if (plan.captions) return fmt::format("captions embedded in {} values", plan.label_width);
    return plan.classes > 0 ? fmt::format("{} classes", plan.classes) : "no labels";
}

/// "81000 generator updates", "400000 steps", "900 to 4000 (2000 on average) generator updates".
std::string format_length(const PlannedStage& stage) {
    const auto [fewest, most] = std::ranges::minmax_element(stage.steps_of_each);
    const bool differ = fewest != stage.steps_of_each.end() && *fewest != *most;
    const std::string count =
        differ ? fmt::format("{} to {} ({} on average)", *fewest, *most, stage.steps)
               : std::to_string(stage.steps);
    return fmt::format("{} {}", count, stage.fake_updates > 0 ? "generator updates" : "steps");
}

/// The work of each student's stages, by the network that the students share.
std::string work_per_student(const RunPlan& plan) {
    std::map<std::size_t, double> work;
    for (const PlannedStage& stage : plan.stages) {
        if (stage.network > 0)
            work[stage.network] += stage.flops * static_cast<double>(stage.steps);
    }
    std::string text;
    for (const auto& [network, flops] : work) {
        text += fmt::format("{}{}FLOP per student", text.empty() ? "" : ", ", format_count(flops));
        if (work.size() > 1) text += fmt::format(" ({})", plan.networks[network].who);
    }
    return text;
}

/// How `settings.ranks` GPUs would do a stage together, in one line or two.
std::string describe_ranks(const PlannedStage& stage, const RankPlan& ranks,
                           const RankSettings& settings) {
    std::string text = fmt::format("      on {} GPUs: {} of {} micro-batches for the busiest",
                                   settings.ranks, ranks.of_busiest, ranks.micro_batches);
    if (ranks.idle > 0) text += fmt::format(", none for {}", ranks.idle);
    if (ranks.even_micro_batch != stage.micro_batch)
        text += fmt::format(" ({}.micro_batch = {} divides them evenly)", stage.name(),
                            ranks.even_micro_batch);
    text += fmt::format("; {} sums of {:.3g} GB per {}, {:.3g} s at {:.4g} GB/s\n", ranks.sums,
                        ranks.sum_bytes / 1e9, stage.fake_updates > 0 ? "generator update" : "step",
                        ranks.sum_seconds, settings.link / 1e9);
    if (!std::isfinite(ranks.step_seconds())) return text;
    const double steps = static_cast<double>(stage.steps);
    return text + fmt::format("      time {}, or {} if sums waited for the end of an update{}\n",
                              core::format_duration(steps * ranks.step_seconds()),
                              core::format_duration(steps * ranks.step_seconds_without_overlap()),
                              stage.times > 1 ? ", per student" : "");
}

void print(const RunPlan& plan, const std::vector<Estimate>& estimates,
           const pipeline::RunConfig& config, const Estimator& estimator,
           const RankSettings& settings) {
    const bool latent = plan.spec.kind == data::SampleSpec::Kind::latent;
    std::cout << fmt::format("data      {}; {} {}, {}\nteacher   {}\n", plan.data_description,
                             latent ? "latents" : "shape", core::to_string(plan.spec.shape),
                             describe_conditioning(plan), plan.teacher_description);
    std::cout << fmt::format(
        "device    {}{}, precision {}, activation checkpointing {}\n", config.device,
        estimator.memory() > 0 ? fmt::format(" with {:.4g} GiB", estimator.memory() / gib)
                               : ", memory not known (--device-memory)",
        config.precision, config.activation_checkpointing ? "on" : "off");
    std::cout << fmt::format("rate      {}\n\nnetworks\n", estimator.rate_description());
    for (const PlannedNetwork& network : plan.networks) {
        std::cout << fmt::format("  {:<22} {:<10} {:>14} parameters  {:>10}FLOP per evaluation\n",
                                 network.who, network.network.architecture, network.parameters,
                                 format_count(network.flops));
    }
    std::cout << "\nstages\n";
    if (!plan.shares)
        std::cout << "  updates of DM and ADM are the students' mean: how students.budget divides "
                     "them is known once the partition is made\n";
    double total = 0, work = 0;
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
        const PlannedStage& stage = plan.stages[i];
        const Estimate& estimate = estimates[i];
        const double seconds = estimate.step_seconds * static_cast<double>(stage.steps);
        total += estimate.step_seconds * static_cast<double>(stage.all_steps());
        work += stage.flops * static_cast<double>(stage.all_steps());
        const bool matching = stage.fake_updates > 0;
        std::string fake_updates_text;
        if (matching)
            fake_updates_text =
                fmt::format("; {} of the fake score per generator update", stage.fake_updates);
        std::cout << fmt::format("  {} of {}: {} of {} samples, {} per micro-batch{}\n",
                                 stage.name(), plan.networks[stage.network].who,
                                 format_length(stage), stage.batch, stage.micro_batch,
                                 fake_updates_text);
        std::cout << fmt::format(
            "      memory {:.2f} GiB ({:.2f} {} activation checkpointing), {}FLOP per {}\n",
            estimate.bytes / gib, estimate.bytes_toggled / gib,
            config.activation_checkpointing ? "without" : "with", format_count(stage.flops),
            matching ? "generator update" : "step");
        std::cout << fmt::format(
            "      images seen: {} of the data, {} generated{}\n", format_images(stage.real_images),
            format_images(stage.generated_images),
            stage.times > 1 ? fmt::format(", for each of {} students", stage.times) : "");
        if (std::isfinite(seconds)) {
            std::cout << fmt::format(
                "      time {}{} (from {}: {:.3g} s)\n", core::format_duration(seconds),
                stage.times > 1 ? " per student" : "", estimate.from, estimate.step_seconds);
        }
        if (settings.ranks > 1)
            std::cout << describe_ranks(stage, ranks_of(plan, stage, estimate, settings), settings);
    }
    std::cout << fmt::format("\nin all {}FLOP", format_count(work));
    const std::string each = work_per_student(plan);
    if (!each.empty()) std::cout << ", " << each;
    if (std::isfinite(total))
        std::cout << fmt::format(", {} on one such device, students one after the other",
                                 core::format_duration(total));
    std::cout << "; probes, pairs, the network of LPIPS and evaluation not counted" << std::endl;
}

void check_memory(const RunPlan& plan, const std::vector<Estimate>& estimates,
                  const pipeline::RunConfig& config, double memory) {
    for (std::size_t i = 0; i < plan.stages.size(); ++i) {
        const PlannedStage& stage = plan.stages[i];
        const Estimate& estimate = estimates[i];
        if (memory <= 0 || estimate.bytes <= memory) continue;
        std::string remedy;
        if (estimate.fitting_micro_batch > 0)
            remedy = fmt::format("lower {}.micro_batch to {}", stage.name(),
                                 estimate.fitting_micro_batch);
        if (!config.activation_checkpointing && estimate.bytes_toggled <= memory)
            remedy +=
                std::string(remedy.empty() ? "" : ", or ") + "set activation_checkpointing = true";
        if (remedy.empty())
            remedy =
                "even a micro-batch of one sample does not: take a smaller network, or a device "
                "with more "
                "memory";
        throw core::UsageError(fmt::format(
            "{} of {} needs {:.1f} GiB with {} samples per micro-batch, {} has {:.1f}; {}",
            stage.name(), plan.networks[stage.network].who, estimate.bytes / gib, stage.micro_batch,
            config.device, memory / gib, remedy));
    }
}

}  // namespace

void dry_run(pipeline::LoadedConfig loaded, const DryRunOptions& options) {
    const RunPlan plan = plan_run(loaded);
    std::shared_ptr<const data::Dataset> raw;
    if (plan.samples > 0)
        raw = data::open_dataset({.path = loaded.config.data_path, .split = "train", .limit = 0});
    for (const std::string& warning : pipeline::check_before_training(loaded, raw.get()))
        core::log::warning("{}", warning);
    raw.reset();
    const Estimator estimator(loaded.config, plan, options);
    std::vector<Estimate> estimates;
    for (const PlannedStage& stage : plan.stages) {
        if (core::stop_requested()) throw core::Interrupted("interrupted; nothing was written");
        estimates.push_back(estimator.of(stage));
    }
    if (options.json)
        std::cout << json_of(plan, estimates, loaded.config, estimator, options.ranks).dump()
                  << std::endl;
    else print(plan, estimates, loaded.config, estimator, options.ranks);
    check_memory(plan, estimates, loaded.config, estimator.memory());
}

std::string advice_on_memory(const pipeline::LoadedConfig& loaded, const std::string& stage) {
    const pipeline::RunConfig& config = loaded.config;
    const RunPlan plan = plan_run(loaded);
    const double there = inference::memory_of(config.device),
                 memory = there > 0 ? there : available_memory(config, {}),
                 base = own_bytes(execution_mode(config, false));
    const bool recompute = config.activation_checkpointing;
    std::int64_t now = 0, fitting = std::numeric_limits<std::int64_t>::max();
    for (const PlannedStage& planned : plan.stages) {  // one for each size of students
        if (planned.name() != stage) continue;
        now = std::max(now, planned.micro_batch);
        fitting = std::min(fitting, largest_micro_batch(planned, planned.micro_batch / 2, base,
                                                        memory, recompute));
    }
    if (now == 0) return "";
    if (memory > 0 && fitting > 0)
        return fmt::format(
            "; set {}.micro_batch = {}, which should fit into its {:.3g} GiB (it is {})", stage,
            fitting, memory / gib, now);
    return fmt::format("; lower {}.micro_batch ({}){}", stage, now,
                       recompute ? "" : ", or set activation_checkpointing = true");
}

}  // namespace atelier::planning
