#include "atelier/planning/dry_run.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <map>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/inference/device.h"
#include "atelier/pipeline/preflight.h"
#include "atelier/planning/estimate.h"
#include "atelier/planning/figures.h"

namespace atelier::planning {

namespace {

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
                       const pipeline::RunConfig& config, const DeviceProfile& device,
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
            {"device_memory_bytes", device.memory},
            {"precision", config.precision},
            {"activation_checkpointing", config.activation_checkpointing},
            {"rate", device.rate_description},
            {"ranks", settings.ranks},
            {"networks", networks},
            {"stages", stages}};
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
           const pipeline::RunConfig& config, const DeviceProfile& device,
           const RankSettings& settings) {
    const bool latent = plan.spec.kind == data::SampleSpec::Kind::latent;
    std::cout << fmt::format("data      {}; {} {}, {}\nteacher   {}\n", plan.data_description,
                             latent ? "latents" : "shape", core::to_string(plan.spec.shape),
                             describe_conditioning(plan), plan.teacher_description);
    std::cout << fmt::format(
        "device    {}{}, precision {}, activation checkpointing {}\n", config.device,
        device.memory > 0 ? fmt::format(" with {:.4g} GiB", device.memory / gib)
                          : ", memory not known (--device-memory)",
        config.precision, config.activation_checkpointing ? "on" : "off");
    std::cout << fmt::format("rate      {}\n\nnetworks\n", device.rate_description);
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
            std::cout << describe_ranks(stage, ranks_of(plan, stage, estimate, settings), settings)
                      << (config.optimizer_sharding
                              ? "      moments and averages are shared out (optimizer_sharding)\n"
                              : "");
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
    const RunPlan plan = plan_run(loaded, options.ranks.ranks);
    std::shared_ptr<const data::Dataset> raw;
    if (plan.samples > 0)
        raw = data::open_dataset({.path = loaded.config.data_path, .split = "train", .limit = 0});
    for (const std::string& warning : pipeline::check_before_training(loaded, raw.get()))
        core::log::warning("{}", warning);
    raw.reset();
    const DeviceProfile device =
        profile_device(loaded.config, options.device_memory_gib, options.tflops);
    std::vector<Estimate> estimates;
    for (const PlannedStage& stage : plan.stages)
        estimates.push_back(estimate(loaded.config, plan, stage, device));
    if (options.json)
        std::cout << core::json_text(json_of(plan, estimates, loaded.config, device, options.ranks))
                  << std::endl;
    else print(plan, estimates, loaded.config, device, options.ranks);
    check_memory(plan, estimates, loaded.config, device.memory);
}

std::string advice_on_memory(const pipeline::LoadedConfig& loaded, const std::string& stage) {
    const pipeline::RunConfig& config = loaded.config;
    const RunPlan plan = plan_run(loaded);
    const double there = inference::memory_of(config.device),
                 memory = there > 0 ? there : available_memory(config, 0),
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
