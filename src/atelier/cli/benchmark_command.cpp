#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <iostream>
#include <numeric>

#include "atelier/backends/torch/bfloat16.h"
#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/core/error.h"
#include "atelier/core/heap.h"
#include "atelier/core/image_file.h"
#include "atelier/core/json_file.h"
#include "atelier/core/processors.h"
#include "atelier/distillation/distribution_matching.h"
#include "atelier/inference/pipeline.h"
#include "atelier/kernels/instructions.h"
#include "atelier/metrics/latency.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"
#include "atelier/models/prompt_encoder.h"
#include "atelier/planning/footprint.h"
#include "atelier/training/stepper.h"

namespace atelier::cli {

namespace {

struct BenchmarkArguments {
    std::string model;
    EngineOptions engine;
    std::int64_t batch = 1, micro_batch = 0, threads = 0, runs = 10;
    bool training = false, gan = false, recompute = false;
};

constexpr std::int64_t warmup_runs = 3, warmup_cycles = 1;

std::int64_t peak_rss_bytes() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss * 1024;
}

/// A model, or the first student of an ensemble, which represents all of them.
models::Model first_model(const std::string& path, at::Device device, models::Weights weights) {
    if (models::is_ensemble_directory(path))
        return models::read_student(models::read_ensemble(path), 0, device, weights);
    return models::read_model(path, device, weights);
}

/// The engine with its precision resolved for the model or the students at `path`.
inference::Engine engine_for(const inference::Engine& engine, const std::string& path) {
    if (!models::is_ensemble_directory(path))
        return inference::engine_for(engine, models::read_model_config(path));
    return inference::engine_for(
        engine, models::read_model_config(models::read_ensemble(path).students.front()));
}

constexpr const char* benchmark_prompt = "a photo of a cat";

/// Requests for one batch whose conditions cycle through `classes`, or have the same prompt.
std::vector<inference::SampleRequest> batch_requests(const inference::Pipeline& pipeline,
                                                     std::int64_t batch,
                                                     std::span<const std::int64_t> classes) {
    const std::vector<std::string> prompts{benchmark_prompt};
    return pipeline.reads_prompts()
               ? inference::prompt_requests(batch, 0, prompts)
               : inference::class_requests(batch, 0, classes, pipeline.prior());
}

/// Median seconds of one evaluation of student 0, which represents all of them, at the highest
/// noise level.
metrics::Latency evaluation_time(const inference::Pipeline& pipeline,
                                 const BenchmarkArguments& arguments) {
    const auto sampler = pipeline.open_student(
        0, pipeline.is_diffusers() ? pipeline.sampling() : inference::Sampling{});
    const Tensor z = diffusion::image_noise(0, 0, arguments.batch, pipeline.spec().shape);
    std::vector<std::int64_t> own;
    if (!pipeline.reads_prompts()) own = pipeline.partition().cell(0);
    const auto conditioning =
        pipeline.encode(inference::conditions_of(batch_requests(pipeline, arguments.batch, own)));
    return metrics::median_seconds([&] { sampler->evaluate(z, conditioning); }, warmup_runs,
                                   arguments.runs);
}

/// Median seconds of one request: noise, routing, all evaluations of the sampler, 8-bit pixels and
/// their PNGs.
metrics::Latency request_time(inference::Pipeline& pipeline, const BenchmarkArguments& arguments) {
    std::vector<std::int64_t> classes(static_cast<std::size_t>(pipeline.prior().classes()));
    std::iota(classes.begin(), classes.end(), 0);
    const auto requests = batch_requests(pipeline, arguments.batch, classes);
    const bool images = pipeline.decoded_spec().kind == data::SampleSpec::Kind::image;
    // A multi-step request already averages over its evaluations.
    const std::int64_t evaluations = pipeline.sampling().evaluations(),
                       runs = std::max<std::int64_t>(1, arguments.runs / evaluations);
    return metrics::median_seconds(
        [&] {
            const Tensor user = pipeline.decode(pipeline.draw(requests));
            for (std::int64_t i = 0; images && i < user.size(0); ++i)
                core::encode_png(data::image_of(user[i]));
        },
        evaluations == 1 ? warmup_runs : 1, runs);
}

nlohmann::json inference_figures(const BenchmarkArguments& arguments,
                                 inference::Pipeline& pipeline) {
    const metrics::Latency evaluated = evaluation_time(pipeline, arguments);
    const bool guided = pipeline.guidance().value_or(1) != 1;  // evaluates the network twice
    return {{"median_seconds", evaluated.median},
            {"least_seconds", evaluated.least},
            {"most_seconds", evaluated.most},
            {"request_median_seconds", request_time(pipeline, arguments).median},
            {"flops", pipeline.size_of_student(0).flops * static_cast<double>(arguments.batch) *
                          (guided ? 2 : 1)}};
}

std::vector<std::int64_t> classes_in_turn(std::int64_t count, std::int64_t classes) {
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < count; ++i) all.push_back(i % std::max<std::int64_t>(1, classes));
    return all;
}

/// One DMD2 cycle on noise instead of data: five updates of the fake score, one of the student,
/// teacher and fake score of the model's own size.
nlohmann::json training_figures(const BenchmarkArguments& arguments,
                                const inference::Engine& engine) {
    core::keep_freed_memory();
    models::Model model = first_model(arguments.model, engine.device, models::Weights::copied);
    backends::Parameters student = model.parameters.clone(), fake = model.parameters.clone();
    if (arguments.gan) fake.merge(distillation::init_head(model.network, 0).to(engine.device), "");
    backends::Compute compute = engine.compute();
    if (engine.device.is_cpu() && !backends::cpu_trains_in_bfloat16())
        compute.type = std::nullopt;  // as a run would (RunConfig::compute)
    compute.recompute = arguments.recompute;
    if (compute.type) model.parameters = model.parameters.cast_weights(*compute.type);
    const auto teacher = model.denoiser(compute);
    const std::int64_t classes = std::max<std::int64_t>(1, model.network.label_dim);
    const auto real = [&](std::int64_t step) {
        return distillation::LabelledBatch{
            diffusion::image_noise(1, step * arguments.batch, arguments.batch,
                                   model.network.data_shape)
                    .to(engine.device) *
                model.noise.sigma_data,
            classes_in_turn(arguments.batch, classes)};
    };
    distillation::MatchingSettings settings;
    settings.steps = warmup_cycles + arguments.runs;
    settings.batch = arguments.batch;
    settings.micro_batch = arguments.micro_batch;
    if (arguments.gan) settings.adversarial = distillation::AdversarialSettings{.gan_weight = 3e-3};
    distillation::DistributionMatching matching(
        {model.network,
         student,
         model.network,
         fake,
         teacher,
         {std::vector<double>(static_cast<std::size_t>(classes), 1.0)},
         real,
         {},
         {}},
        settings, {model.noise, compute, 0, "benchmark"});
    const planning::ExecutionMode mode{!engine.device.is_cpu(), compute.type.has_value(),
                                       compute.recompute};
    const planning::DistillationCost sizes =
        planning::distillation_cost(settings, model.network, model.network, mode);
    const std::int64_t parts =
        distillation::micro_batch_count(arguments.batch, arguments.micro_batch);
    const planning::Batch at_once{
        static_cast<double>(parts > 1 ? arguments.micro_batch : arguments.batch),
        parts > 1 ? planning::exact_sum : 0};
    // The weights are allocated already.
    const double there = (fake.count() + student.count()) * 4.0 +
                         model.parameters.count() * (compute.type ? 2.0 : 4.0);
    const double estimated =
        planning::own_bytes(mode) - there + planning::distillation_bytes(sizes, at_once, mode);
    training::Stepper stepper(matching);
    std::int64_t step = 0;
    const auto cycle = metrics::median_seconds([&] { stepper.step(step++).read(); }, warmup_cycles,
                                               arguments.runs);
    const auto images = static_cast<double>(arguments.batch * (settings.fake_updates + 1));
    return {{"seconds_per_cycle", cycle.median},
            {"computed_in", compute.type ? "bf16" : "fp32"},
            {"images_per_second", images / cycle.median},
            {"gan", arguments.gan},
            {"estimated_peak_bytes", estimated},
            {"flops_a_cycle",
             planning::distillation_flops(sizes, static_cast<double>(arguments.batch),
                                          static_cast<double>(settings.fake_updates), mode)}};
}

void benchmark(BenchmarkArguments& arguments) {
    if (arguments.training && arguments.engine.engine == "auto") arguments.engine.engine = "torch";
    const inference::Engine chosen = arguments.engine.chosen();
    if (!arguments.training &&
        (arguments.gan || arguments.recompute || arguments.micro_batch > 0)) {
        throw core::UsageError(
            "--gan, --micro-batch and --activation-checkpointing go with --training");
    }
    if (arguments.training && chosen.kind != inference::Engine::Kind::torch)
        throw core::UsageError("--training runs on --engine torch");
    arguments.model = models::model_at(arguments.model).string();
    if (arguments.training) {
        if (models::is_diffusers_directory(arguments.model))
            throw core::UsageError(
                "--training: " + arguments.model +
                ": is a diffusers directory; a training cycle is timed of models "
                "and ensembles of classes");
        models::reject_prompts(arguments.model);
    }
    if (arguments.threads > 0)
        at::set_num_threads(static_cast<int>(core::threads_within(arguments.threads, "--threads")));
    inference::Engine engine = chosen;
    nlohmann::json figures;
    if (arguments.training) {
        engine = engine_for(chosen, arguments.model);
        figures = training_figures(arguments, engine);
    } else {
        const auto pipeline = inference::Pipeline::load(arguments.model, {.engine = chosen});
        engine = pipeline->engine();
        figures = inference_figures(arguments, *pipeline);
    }
    figures.update({{"model", arguments.model},
                    {"engine", inference::name_of(engine.kind)},
                    {"precision", inference::name_of(engine.precision)},
                    {"device", arguments.engine.device},
                    {"batch", arguments.batch},
                    {"threads", at::get_num_threads()},
                    {"runs", arguments.runs},
                    {"peak_rss_bytes", peak_rss_bytes()}});
    std::cout << core::json_text(figures) << std::endl;
}

}  // namespace

void add_benchmark_command(CLI::App& app) {
    auto arguments = std::make_shared<BenchmarkArguments>();
    CLI::App* command = app.add_subcommand(
        "benchmark",
        "Time one evaluation of a model and one whole request, or one training cycle; JSON");
    command
        ->add_option("MODEL", arguments->model,
                     "a model, an ensemble, a run (its ensemble) or a diffusers directory")
        ->required();
    command->add_option("--batch", arguments->batch, "samples per batch")
        ->check(CLI::Range(1, 100000));
    command
        ->add_option("--threads", arguments->threads,
                     "threads; without: one per processor, and never more")
        ->check(CLI::Range(1, 1024));
    command
        ->add_option("--runs", arguments->runs,
                     "timed runs, after some warm-up runs; medians are reported")
        ->check(CLI::Range(1, 100000));
    command->add_flag(
        "--training", arguments->training,
        "time a DMD2 cycle instead: five fake-score updates and one of the generator");
    command->add_flag("--gan", arguments->gan, "with --training: with the GAN head");
    command
        ->add_option("--micro-batch", arguments->micro_batch,
                     "with --training: samples per micro-batch; 0: all")
        ->check(CLI::NonNegativeNumber);
    command->add_flag("--activation-checkpointing", arguments->recompute,
                      "with --training: compute blocks again in the backward pass");
    arguments->engine.add_to(*command);
    command->footer(
        "Examples:\n  atelier benchmark models/fashion-mnist/k4 --engine openvino --precision bf16 "
        "--threads 2\n"
        "  atelier benchmark models/fashion-mnist/teacher --training --batch 64 --gan --precision "
        "bf16");
    command->callback([arguments] { benchmark(*arguments); });
}

}  // namespace atelier::cli
