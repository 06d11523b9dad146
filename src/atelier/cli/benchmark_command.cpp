#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <iostream>

#include "atelier/backends/torch/bfloat16.h"
#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/core/error.h"
#include "atelier/core/heap.h"
#include "atelier/core/image_file.h"
#include "atelier/core/processors.h"
#include "atelier/distillation/distribution_matching.h"
#include "atelier/inference/generator.h"
#include "atelier/kernels/instructions.h"
#include "atelier/metrics/latency.h"
#include "atelier/models/diffusers_directory.h"
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

std::vector<std::int64_t> classes_in_turn(std::int64_t count, std::int64_t classes) {
    std::vector<std::int64_t> all;
    for (std::int64_t i = 0; i < count; ++i) all.push_back(i % std::max<std::int64_t>(1, classes));
    return all;
}

/// Median seconds of one evaluation of the network, at the highest noise level.
metrics::Latency evaluation_time(const models::Model& model, const inference::Engine& engine,
                                 const BenchmarkArguments& arguments) {
    const auto one_step = inference::open_one_step(model, engine);
    const Tensor z = diffusion::image_noise(0, 0, arguments.batch, model.network.data_shape);
    const auto classes = classes_in_turn(arguments.batch, model.network.label_dim);
    return metrics::median_seconds([&] { one_step->draw(z, classes); }, warmup_runs,
                                   arguments.runs);
}

/// Median seconds of one request: noise, routing, all evaluations of the sampler, 8-bit pixels and
/// their PNGs.
metrics::Latency request_time(const inference::Engine& engine,
                              const BenchmarkArguments& arguments) {
    const auto generator = inference::open_generator(arguments.model, std::nullopt, engine);
    const inference::SampleRequest request = inference::sample_request(
        arguments.batch, 0, classes_in_turn(arguments.batch, generator->prior().classes()),
        generator->prior());
    const bool images = generator->spec().kind == data::SampleSpec::Kind::image;
    // A multi-step request already averages over its evaluations.
    const std::int64_t evaluations = generator->sampling().evaluations(),
                       runs = std::max<std::int64_t>(1, arguments.runs / evaluations);
    return metrics::median_seconds(
        [&] {
            const Tensor user =
                data::to_user_space(generator->spec(), generator->draw(request)).contiguous();
            for (std::int64_t i = 0; images && i < user.size(0); ++i)
                core::encode_png(data::image_of(user[i]));
        },
        evaluations == 1 ? warmup_runs : 1, runs);
}

nlohmann::json inference_figures(const BenchmarkArguments& arguments,
                                 const inference::Engine& engine) {
    metrics::Latency evaluated;
    double flops = 0;
    {
        const models::Model model = first_model(arguments.model, engine.device, engine.weights());
        evaluated = evaluation_time(model, engine, arguments);
        flops = networks::trace(model.network).flops * static_cast<double>(arguments.batch);
    }
    return {{"median_seconds", evaluated.median},
            {"least_seconds", evaluated.least},
            {"most_seconds", evaluated.most},
            {"request_median_seconds", request_time(engine, arguments).median},
            {"flops", flops}};
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
    const planning::ExecutionMode mode{engine.device.is_cuda(), compute.type.has_value(),
                                       compute.recompute};
    planning::DistillationCost sizes{planning::network_cost(model.network, mode),
                                     planning::network_cost(model.network, mode),
                                     planning::network_cost(model.network, mode),
                                     {},
                                     {},
                                     arguments.gan};
    if (arguments.gan) {
        sizes.encoder =
            planning::network_cost(model.network, mode, networks::TraceScope::encoder_only);
        sizes.head = planning::head_cost(model.network, mode);
    }
    const std::int64_t parts =
        distillation::micro_batch_count(arguments.batch, arguments.micro_batch);
    const planning::Batch at_once{
        static_cast<double>(parts > 1 ? arguments.micro_batch : arguments.batch), parts > 1};
    // The weights are allocated already.
    const double there = (fake.count() + student.count()) * 4.0 +
                         model.parameters.count() * (compute.type ? 2.0 : 4.0);
    const double estimated =
        planning::own_bytes(mode) - there + planning::distillation_bytes(sizes, at_once, mode);
    training::Stepper stepper(matching);
    std::int64_t step = 0;
    const auto cycle =
        metrics::median_seconds([&] { stepper.step(step++); }, warmup_cycles, arguments.runs);
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
    if (models::is_diffusers_directory(arguments.model))
        throw core::UsageError(arguments.model +
                               ": is a diffusers directory, which is not timed; benchmark takes "
                               "models and ensembles of classes");
    models::reject_prompts(arguments.model);
    const inference::Engine engine = engine_for(chosen, arguments.model);
    if (arguments.threads > 0)
        at::set_num_threads(static_cast<int>(core::threads_within(arguments.threads, "--threads")));
    nlohmann::json figures = arguments.training ? training_figures(arguments, engine)
                                                : inference_figures(arguments, engine);
    figures.update({{"model", arguments.model},
                    {"engine", inference::name_of(engine.kind)},
                    {"precision", inference::name_of(engine.precision)},
                    {"device", arguments.engine.device},
                    {"batch", arguments.batch},
                    {"threads", at::get_num_threads()},
                    {"runs", arguments.runs},
                    {"peak_rss_bytes", peak_rss_bytes()}});
    std::cout << figures.dump() << std::endl;
}

}  // namespace

void add_benchmark_command(CLI::App& app) {
    auto arguments = std::make_shared<BenchmarkArguments>();
    CLI::App* command = app.add_subcommand(
        "benchmark",
        "Time one evaluation of a model and one whole request, or one training cycle; JSON");
    command->add_option("MODEL", arguments->model, "a model, an ensemble or a run (its ensemble)")
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
