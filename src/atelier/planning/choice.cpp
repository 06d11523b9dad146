#include "atelier/planning/choice.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <set>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/progress.h"
#include "atelier/diffusion/samplers.h"
#include "atelier/inference/engine.h"
#include "atelier/metrics/latency.h"
#include "atelier/networks/architecture.h"
#include "atelier/planning/estimate.h"
#include "atelier/planning/evidence.h"
#include "atelier/planning/figures.h"
#include "atelier/training/run_directory.h"

namespace atelier::planning {

namespace {

using pipeline::StageKind;

constexpr double seconds_per_hour = 3600, milliseconds = 1e3;

/// Students of one width: what training and one evaluation of one of them take.
struct WidthPlan {
    std::int64_t width = 0;
    pipeline::RunConfig config;  // with one student of that width
    RunPlan plan;
    std::vector<Estimate> estimates;  // of plan.stages; the teacher's is empty
    double latency = std::nan("");    // seconds

    const PlannedNetwork& network() const { return plan.networks.back(); }
    double bytes() const {
        double most = 0;
        for (const Estimate& estimate : estimates) most = std::max(most, estimate.bytes);
        return most;
    }
};

/// The steps of a stage of each student, or of the trunk.
struct Steps {
    StageKind kind;
    bool of_trunk = false;
    std::int64_t steps = 0, batch = 0;
};

/// A number of students of one width, and what the budget buys with them.
struct Candidate {
    std::int64_t students = 1;
    const WidthPlan* of = nullptr;
    std::vector<Steps> steps;
    double flops = 0, seconds = 0;  // of all students and the trunk
    double samples = 0;             // that one student generates for its updates in DM and ADM
    double all_samples = 0;         // the same of all students and the trunk
    std::string unfit;              // why it is none; empty where it fits
};

std::int64_t count_of_conditions(const RunPlan& plan) {
    return plan.captions ? 0 : std::max<std::int64_t>(1, plan.classes);
}

/// The config with one student, of `width` unless it is 0.
pipeline::RunConfig with_width(pipeline::RunConfig config, std::int64_t width) {
    config.partition.students = 1;
    config.students.budget = pipeline::Budget::equal;
    auto& depths = config.students.depths;
    if (std::ranges::adjacent_find(depths, std::not_equal_to()) != depths.end())
        throw core::UsageError(
            "plan compares students of one size: give one entry in students.depths");
    depths.resize(std::min<std::size_t>(depths.size(), 1));
    config.students.widths.clear();
    if (width > 0) config.students.widths.push_back(width);
    return config;
}

WidthPlan plan_width(const pipeline::LoadedConfig& loaded, std::int64_t width) {
    pipeline::LoadedConfig changed = loaded;
    changed.config = with_width(loaded.config, width);
    WidthPlan plan{.config = changed.config, .plan = plan_run(changed)};
    plan.width = networks::width_of(plan.network().config, loaded.path);
    return plan;
}

/// The config's widths, widest first, and up to three halves of the narrowest of them that the
/// network can have.
std::vector<WidthPlan> plan_widths(const pipeline::LoadedConfig& loaded) {
    constexpr int narrower = 3;
    constexpr std::int64_t narrowest = 4;
    const pipeline::StudentsConfig& students = loaded.config.students;
    std::vector<WidthPlan> plans;
    const std::set<std::int64_t, std::greater<>> given(students.widths.begin(),
                                                       students.widths.end());
    for (const std::int64_t width : given) plans.push_back(plan_width(loaded, width));
    if (given.empty()) plans.push_back(plan_width(loaded, 0));
    if (students.lora_rank > 0 || !students.start.empty()) return plans;  // they have one size
    for (int i = 0; i < narrower && plans.back().width / 2 >= narrowest; ++i) {
        try {
            plans.push_back(plan_width(loaded, plans.back().width / 2));
        } catch (const core::Error&) {  // the network has no such width, so no half of it either
            break;
        }
    }
    return plans;
}

/// Seconds of one evaluation of one sample; NaN where the network is too large to try.
double measure_latency(const PlannedNetwork& network) {
    constexpr double most_flops = 2e12, most_parameters = 5e8;
    if (network.flops > most_flops || static_cast<double>(network.parameters) > most_parameters)
        return std::nan("");
    const at::NoGradGuard no_gradients;
    const models::Model model = models::init_model(network.config, 0);
    const inference::Engine engine = inference::engine_of("auto", "auto", "cpu");
    const Tensor z = diffusion::image_noise(0, 0, 1, model.network.data_shape);
    const auto median = [](const auto& evaluate) {
        return metrics::median_seconds([&] { evaluate(); }).median;
    };
    if (model.network.tokens > 0) {
        const auto denoiser = inference::open_denoiser(model, engine);
        const Tensor rows =
            diffusion::image_noise(1, 0, 1, {model.network.tokens, model.network.label_dim});
        return median(
            [&] { diffusion::sample_one_step(*denoiser, z, model.noise, {.labels = rows}); });
    }
    const auto one_step = inference::open_one_step(model, engine);
    const std::vector<std::int64_t> classes{0};
    return median([&] { one_step->draw(z, classes); });
}

/// Seconds that the teacher's training takes; 0 where it is there already.
double teacher_seconds(const pipeline::RunConfig& config, const RunPlan& plan,
                       const DeviceProfile& device) {
    const std::filesystem::path made =
        std::filesystem::path(config.output) / pipeline::stage_path(StageKind::teacher);
    for (const PlannedStage& stage : plan.stages) {
        if (stage.network == 0 && !training::StageFolder::is_finished(made))
            return estimate(config, plan, stage, device).step_seconds *
                   static_cast<double>(stage.steps);
    }
    return 0;
}

/// What `seconds` buy with so many students, in the config's proportions of stages.
Candidate candidate_of(std::int64_t students, const WidthPlan& of, double seconds) {
    Candidate candidate{.students = students, .of = &of};
    const auto times = [&](const PlannedStage& stage) {
        return stage.of_trunk ? 1.0 : static_cast<double>(students);
    };
    double once = 0;  // seconds of the config's steps
    for (std::size_t i = 0; i < of.plan.stages.size(); ++i) {
        const PlannedStage& stage = of.plan.stages[i];
        if (stage.network > 0)
            once += times(stage) * static_cast<double>(stage.steps) * of.estimates[i].step_seconds;
    }
    for (std::size_t i = 0; i < of.plan.stages.size(); ++i) {
        const PlannedStage& stage = of.plan.stages[i];
        if (stage.network == 0) continue;
        const double exact = static_cast<double>(stage.steps) * seconds / once;
        const auto steps = static_cast<std::int64_t>(exact);
        candidate.steps.push_back({stage.kind, stage.of_trunk, steps, stage.batch});
        const double each = static_cast<double>(steps);
        candidate.flops += times(stage) * each * stage.flops;
        candidate.seconds += times(stage) * each * of.estimates[i].step_seconds;
        if (stage.fake_updates > 0) {
            const double samples = each * static_cast<double>(stage.batch);
            if (!stage.of_trunk) candidate.samples += samples;
            candidate.all_samples += times(stage) * samples;
        }
        if (steps == 0) candidate.unfit = "budget too small";
    }
    return candidate;
}

double samples_per_condition(const Candidate& candidate) {
    return candidate.all_samples / static_cast<double>(count_of_conditions(candidate.of->plan));
}

std::set<std::int64_t> numbers_of_students(const pipeline::RunConfig& config, const RunPlan& plan) {
    std::set<std::int64_t> numbers{1, 2, 4, 8, config.partition.students};
    const bool splits = plan.captions || plan.classes > 0;
    std::erase_if(numbers, [&](std::int64_t students) {
        return students > 1 && (!splits || (!plan.captions && students > plan.classes));
    });
    return numbers;
}

/// The config in which DM and ADM see as many samples in batches of `batch`.
pipeline::LoadedConfig with_batch(pipeline::LoadedConfig loaded, std::int64_t batch) {
    for (auto* settings : {&loaded.config.dm, &loaded.config.adm}) {
        settings->steps = std::max<std::int64_t>(std::min<std::int64_t>(1, settings->steps),
                                                 settings->steps * settings->batch / batch);
        settings->batch = batch;
    }
    return loaded;
}

/// The words of a command line that make the config's run the chosen one.
std::vector<std::string> overrides_of(const Candidate& candidate,
                                      const pipeline::RunConfig& config) {
    std::vector<std::string> words{fmt::format("partition.students={}", candidate.students)};
    if (!candidate.of->config.students.widths.empty())
        words.push_back(fmt::format("students.widths=[{}]", candidate.of->width));
    if (config.students.depths.size() > 1)
        words.push_back(fmt::format("students.depths=[{}]", config.students.depths[0]));
    for (const Steps& stage : candidate.steps) {
        const std::string name = pipeline::name_of(stage.kind);
        if (stage.of_trunk && stage.kind != StageKind::tsm)
            words.push_back(fmt::format("trunk.{}_steps={}", name, stage.steps));
        else words.push_back(fmt::format("{}.steps={}", name, stage.steps));
        const bool matching = stage.kind == StageKind::dm || stage.kind == StageKind::adm;
        if (matching && !stage.of_trunk && stage.batch != config.matching(stage.kind).batch)
            words.push_back(fmt::format("{}.batch={}", name, stage.batch));
    }
    return words;
}

/// "tsm 2400, dm 4800, adm 1600".
std::string text_of(const std::vector<Steps>& steps) {
    std::vector<std::string> parts;
    for (const Steps& stage : steps)
        parts.push_back(fmt::format("{}{} {}", stage.of_trunk ? "trunk " : "",
                                    pipeline::name_of(stage.kind), stage.steps));
    return fmt::format("{}", fmt::join(parts, ", "));
}

nlohmann::json json_of(const Candidate& candidate) {
    nlohmann::json steps = nlohmann::json::array();
    for (const Steps& stage : candidate.steps)
        steps.push_back({{"stage", pipeline::name_of(stage.kind)},
                         {"of", stage.of_trunk ? "trunk" : "student"},
                         {"steps", stage.steps},
                         {"batch", stage.batch}});
    const bool counted = count_of_conditions(candidate.of->plan) > 0;
    return {
        {"students", candidate.students},
        {"width", candidate.of->width},
        {"parameters", candidate.of->network().parameters},
        {"latency_ms", number_or_null(candidate.of->latency * milliseconds)},
        {"memory_bytes", candidate.of->bytes()},
        {"flops", candidate.flops},
        {"hours", candidate.seconds / seconds_per_hour},
        {"steps", steps},
        {"samples_per_student", candidate.samples},
        {"samples_per_condition",
         counted ? nlohmann::json(samples_per_condition(candidate)) : nlohmann::json()},
        {"unfit", candidate.unfit.empty() ? nlohmann::json() : nlohmann::json(candidate.unfit)}};
}

/// What was asked, what there is to choose from, and what was chosen.
struct Choice {
    DeviceProfile device;
    double teacher_seconds = 0;
    std::string latency_from, width_reason;
    Evidence evidence;
    std::vector<WidthPlan> widths;
    std::vector<Candidate> candidates;
    Verdict verdict;
    WidthPlan chosen_width;  // with the batch of the choice
    Candidate chosen;
};

/// Students of as many as fit are wanted wide. Throws core::UsageError where none fits.
const WidthPlan& widest_that_fits(const Choice& choice, const ChoiceOptions& options) {
    const auto fits = std::ranges::find_if(choice.widths, [&](const WidthPlan& width) {
        return std::ranges::any_of(choice.candidates, [&](const Candidate& candidate) {
            return candidate.of == &width && candidate.unfit.empty();
        });
    });
    if (fits != choice.widths.end()) return *fits;
    const WidthPlan& narrowest = choice.widths.back();
    const auto& reason = choice.candidates.back().unfit;
    if (reason == "too slow")
        throw core::UsageError(fmt::format(
            "--latency {}: one evaluation of the narrowest students, {} wide, takes {:.3g} ms; "
            "allow more, or take fewer blocks (students.depths) or another network",
            options.latency_ms, narrowest.width, narrowest.latency * milliseconds));
    if (reason == "too large")
        throw core::UsageError(fmt::format(
            "students {} wide need {:.1f} GiB, {} has {:.1f}; lower the micro_batch of the stages, "
            "which atelier run --dry-run lists, or set activation_checkpointing = true",
            narrowest.width, narrowest.bytes() / gib, narrowest.config.device,
            choice.device.memory / gib));
    throw core::UsageError(fmt::format("--budget {}: is not enough for one update of every stage",
                                       options.budget_hours));
}

/// The verdict for students of that width; none where conditions cannot be counted.
Verdict verdict_of(const Choice& choice, const WidthPlan& width) {
    const RunPlan& plan = width.plan;
    if (plan.captions)
        return {
            .reasons = {"trials are of classes; how many conditions captions are is not known"}};
    Situation situation{
        .samples = plan.spec.kind == data::SampleSpec::Kind::points ? "points" : "images",
        .relative_width =
            static_cast<double>(width.width) /
            static_cast<double>(networks::width_of(plan.networks.front().config, "teacher"))};
    for (const Candidate& candidate : choice.candidates) {
        if (candidate.of != &width || !candidate.unfit.empty()) continue;
        situation.students.insert(candidate.students);
        situation.samples_per_condition = samples_per_condition(candidate);
    }
    return judge(choice.evidence, situation);
}

nlohmann::json json_of(const Choice& choice, const pipeline::LoadedConfig& loaded,
                       const ChoiceOptions& options) {
    nlohmann::json candidates = nlohmann::json::array(), chosen = json_of(choice.chosen);
    for (const Candidate& candidate : choice.candidates) candidates.push_back(json_of(candidate));
    chosen["students_from"] = choice.verdict.students ? "evidence" : "config";
    chosen["reasons"] = choice.verdict.reasons;
    chosen["width_reason"] = choice.width_reason;
    chosen["overrides"] = overrides_of(choice.chosen, loaded.config);
    return {
        {"config", loaded.path},
        {"budget_hours", options.budget_hours},
        {"latency_limit_ms",
         options.latency_ms > 0 ? nlohmann::json(options.latency_ms) : nlohmann::json()},
        {"latency_from", choice.latency_from},
        {"rate", choice.device.rate_description},
        {"teacher_hours", choice.teacher_seconds / seconds_per_hour},
        {"conditions", count_of_conditions(choice.chosen.of->plan)},
        {"evidence", {{"from", choice.evidence.source}, {"trials", choice.evidence.trials.size()}}},
        {"candidates", candidates},
        {"choice", chosen}};
}

void print(const Choice& choice, const pipeline::LoadedConfig& loaded,
           const ChoiceOptions& options) {
    const PlannedNetwork& teacher = choice.widths.front().plan.networks.front();
    std::cout << fmt::format(
        "config    {}: teacher {}, {} wide, {} parameters\nbudget    {} h of {} at {}\n",
        loaded.path, teacher.network.architecture, networks::width_of(teacher.config, "teacher"),
        teacher.parameters, options.budget_hours, loaded.config.device,
        choice.device.rate_description);
    std::cout << "teacher   "
              << (choice.teacher_seconds > 0
                      ? fmt::format("its training takes {} of that",
                                    core::format_duration(choice.teacher_seconds))
                      : std::string("needs no training"))
              << fmt::format(
                     "\nlatency   {}; {}\nevidence  {}: {} trials\n\n",
                     options.latency_ms > 0 ? fmt::format("at most {} ms", options.latency_ms)
                                            : std::string("not limited (--latency)"),
                     choice.latency_from, choice.evidence.source, choice.evidence.trials.size());
    std::cout << fmt::format("  {:>2} {:>6} {:>11} {:>10} {:>8} {:>14} {:>8} {:>14} {:>14}  {}\n",
                             "K", "width", "parameters", "latency ms", "GiB", "work", "hours",
                             "samples each", "per condition", "steps of each student");
    for (const Candidate& candidate : choice.candidates) {
        const WidthPlan& of = *candidate.of;
        const bool counted = count_of_conditions(of.plan) > 0;
        std::cout << fmt::format(
            "  {:>2} {:>6} {:>11} {:>10} {:>8.2f} {:>14} {:>8.4g} {:>14} {:>14}  {}{}\n",
            candidate.students, of.width, of.network().parameters,
            std::isfinite(of.latency) ? fmt::format("{:.3g}", of.latency * milliseconds) : "?",
            of.bytes() / gib, format_count(candidate.flops) + "FLOP",
            candidate.seconds / seconds_per_hour, format_quantity(candidate.samples),
            counted ? format_quantity(samples_per_condition(candidate)) : "?",
            text_of(candidate.steps), candidate.unfit.empty() ? "" : "  (" + candidate.unfit + ")");
    }
    std::cout << fmt::format("\nchoice    K = {}, students {} wide\n  width   {}\n",
                             choice.chosen.students, choice.chosen.of->width, choice.width_reason);
    for (const std::string& reason : choice.verdict.reasons)
        std::cout << fmt::format("  K       {}\n", reason);
    if (!choice.verdict.students)
        std::cout << fmt::format(
            "  K       so nothing here says that another number is better or worse than {}, the "
            "config's\n",
            choice.chosen.students);
    std::cout << fmt::format("  steps   {}\n  run     atelier run {} {}\n",
                             text_of(choice.chosen.steps), loaded.path,
                             fmt::join(overrides_of(choice.chosen, loaded.config), " "));
    std::cout << "pairs, probes, the network of LPIPS and evaluation are not counted" << std::endl;
}

}  // namespace

void print_choice(const pipeline::LoadedConfig& loaded, const ChoiceOptions& options) {
    Choice choice;
    choice.evidence = options.evidence.empty()
                          ? built_in_evidence()
                          : evidence_from_json(core::read_json(options.evidence), options.evidence);
    const pipeline::RunConfig& config = loaded.config;
    choice.widths = plan_widths(loaded);
    choice.device = profile_device(config, options.device_memory_gib, options.tflops);
    if (choice.device.rate <= 0)
        throw core::UsageError(
            fmt::format("there is no device {} here, so what an hour buys is not known; give "
                        "--tflops",
                        config.device));
    const auto measure = [&](WidthPlan& width) {
        for (const PlannedStage& stage : width.plan.stages)
            width.estimates.push_back(
                stage.network == 0 ? Estimate{}
                                   : estimate(width.config, width.plan, stage, choice.device));
    };
    choice.teacher_seconds =
        teacher_seconds(choice.widths.front().config, choice.widths.front().plan, choice.device);
    for (WidthPlan& width : choice.widths) measure(width);
    at::set_num_threads(static_cast<int>(config.threads));
    choice.latency_from = options.latency_tflops > 0
                              ? fmt::format("of work at {} TFLOP/s", options.latency_tflops)
                              : fmt::format("measured on this CPU, one sample, {} thread{}",
                                            config.threads, config.threads == 1 ? "" : "s");
    for (WidthPlan& width : choice.widths)
        width.latency = options.latency_tflops > 0
                            ? width.network().flops / (options.latency_tflops * 1e12)
                            : measure_latency(width.network());
    const double budget = options.budget_hours * seconds_per_hour,
                 left = budget - choice.teacher_seconds;
    if (left <= 0)
        throw core::UsageError(fmt::format(
            "--budget {}: the teacher's training alone takes {}; raise it, lower teacher.steps, or "
            "name a teacher that exists (teacher.path)",
            options.budget_hours, core::format_duration(choice.teacher_seconds)));
    for (const WidthPlan& width : choice.widths) {
        for (const std::int64_t students : numbers_of_students(config, width.plan)) {
            Candidate candidate = candidate_of(students, width, left);
            if (choice.device.memory > 0 && width.bytes() > choice.device.memory)
                candidate.unfit = "too large";
            if (options.latency_ms > 0) {
                if (!std::isfinite(width.latency))
                    throw core::UsageError(
                        "the students are too large to measure their latency here; give "
                        "--latency-tflops");
                if (width.latency * milliseconds > options.latency_ms) candidate.unfit = "too slow";
            }
            choice.candidates.push_back(std::move(candidate));
        }
    }
    const WidthPlan& widest = widest_that_fits(choice, options);
    choice.width_reason =
        &widest == &choice.widths.front()
            ? fmt::format("{}, the widest of those compared; it fits", widest.width)
            : fmt::format("{}, the widest of those compared that fits", widest.width);
    choice.verdict = verdict_of(choice, widest);
    const std::int64_t students = choice.verdict.students.value_or(config.partition.students);
    choice.chosen_width = widest;
    if (choice.verdict.batch > 0) {
        choice.chosen_width = plan_width(with_batch(loaded, choice.verdict.batch),
                                         widest.config.students.widths.empty() ? 0 : widest.width);
        measure(choice.chosen_width);
        choice.chosen_width.latency = widest.latency;
    }
    choice.chosen = candidate_of(students, choice.chosen_width, left);
    if (!choice.chosen.unfit.empty())
        throw core::UsageError(fmt::format(
            "--budget {}: is not enough for one update of every stage with K = {}; raise it, or "
            "set partition.students",
            options.budget_hours, students));
    if (options.json) std::cout << core::json_text(json_of(choice, loaded, options)) << std::endl;
    else print(choice, loaded, options);
}

}  // namespace atelier::planning
