#include <iostream>

#include <fmt/ranges.h>

#include "atelier/cli/class_ids.h"
#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/image_output.h"
#include "atelier/cli/low_rank_option.h"
#include "atelier/cli/shared_pictures.h"
#include "atelier/cli/text_options.h"
#include "atelier/cli/usage.h"
#include "atelier/conditions/prompt_hints.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/shard.h"
#include "atelier/inference/pipeline.h"
#include "atelier/metrics/two_d.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/identify_path.h"
#include "atelier/report/charts.h"
#include "atelier/serving/image_metadata.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

struct SampleArguments {
    std::string model, out, sampler, noise, shard;
    EngineOptions engine;
    std::int64_t count = 1, seed = 0;
    std::optional<std::int64_t> steps;
    std::optional<std::int64_t> columns;
    std::vector<std::string> classes, low_rank;
    TextOptions text;
    bool json = false;
    ImageText files;  // the content of --noise and --lora, for images' metadata
};

constexpr std::int64_t classes_per_row = 10, prompt_columns = 8;
constexpr int scatter_side = 640;

/// The options that a pipeline is loaded with. Throws core::UsageError when conditions of the other
/// kind are given than the model takes.
inference::PipelineOptions pipeline_options(const SampleArguments& arguments) {
    const TextOptions& text = arguments.text;
    if (!inference::reads_prompts(arguments.model)) {
        const bool guided = text.guidance && models::is_diffusers_directory(arguments.model);
        if (guided ? text.given_beyond_guidance() : text.given())
            throw core::UsageError("--prompt and its like are for models that read prompts; " +
                                   arguments.model + " has classes");
    } else {
        if (!arguments.classes.empty())
            throw core::UsageError("--class: " + arguments.model +
                                   " reads prompts; ask with --prompt");
        if (!text.prompt)
            throw core::UsageError("--prompt: say what to draw; " + arguments.model +
                                   (models::is_diffusers_directory(arguments.model)
                                        ? " is a diffusers directory"
                                        : " reads prompts"));
    }
    return {.engine = arguments.engine.chosen(),
            .sampler = arguments.sampler,
            .steps = arguments.steps,
            .guidance = text.guidance,
            .negative = text.negative.value_or(""),
            .height = text.height.value_or(0),
            .width = text.width.value_or(0),
            .low_rank = low_rank_files(arguments.low_rank)};
}

std::shared_ptr<const inference::GivenNoise> read_noise(const std::string& path) {
    const core::SafetensorsFile file(path);
    if (!file.contains("noise")) core::fail("{}: there is no tensor \"noise\"", path);
    const Tensor noise = backends::read_tensor(file, "noise").to(at::kFloat).contiguous();
    if (noise.dim() < 2 || !at::isfinite(noise).all().item<bool>())
        core::fail("{}: \"noise\" must be [N,...], of finite numbers", path);
    const float* values = noise.const_data_ptr<float>();
    return std::make_shared<const inference::GivenNoise>(inference::GivenNoise{
        noise.sizes().slice(1).vec(), std::vector<float>(values, values + noise.numel())});
}

std::vector<inference::SampleRequest> requests_of(const SampleArguments& arguments,
                                                  const inference::Pipeline& pipeline) {
    const auto seed = static_cast<std::uint64_t>(arguments.seed);
    std::vector<inference::SampleRequest> requests =
        pipeline.reads_prompts()
            ? inference::prompt_requests(arguments.count, seed, {&*arguments.text.prompt, 1})
            : inference::class_requests(arguments.count, seed,
                                        class_ids(arguments.classes, pipeline.spec().class_names,
                                                  pipeline.prior().classes()),
                                        pipeline.prior());
    if (arguments.noise.empty()) return requests;
    const auto noise = read_noise(arguments.noise);
    for (inference::SampleRequest& request : requests) request.noise = noise;
    inference::noise_of(requests.back(), pipeline.spec().shape);  // throws where it does not fit
    return requests;
}

void warn_about_prompts(const SampleArguments& arguments, const inference::Pipeline& pipeline) {
    if (!pipeline.reads_prompts()) return;
    const conditions::ClipTokenizer& tokenizer = *pipeline.conditioner().tokenizer();
    conditions::warn_about_prompt("--prompt", *arguments.text.prompt, tokenizer);
    if (arguments.text.negative && !arguments.text.negative->empty())
        conditions::warn_about_prompt("--negative", *arguments.text.negative, tokenizer);
}

/// Checks that would otherwise fail only after sampling.
void check_output(const SampleArguments& arguments, const inference::Pipeline& pipeline) {
    const data::SampleSpec& spec = pipeline.decoded_spec();
    const ImageFormat format = image_format(arguments.out);
    if (spec.kind == data::SampleSpec::Kind::points) {
        if (format == ImageFormat::folder)
            throw core::UsageError("--out: points are written as .npz or .png, not as a folder");
        return;
    }
    if (format == ImageFormat::npz || format == ImageFormat::folder) return;
    grid_columns(format, arguments.count, spec.shape.at(1), spec.shape.at(2), arguments.columns,
                 pipeline.reads_prompts() ? prompt_columns : classes_per_row);
}

Tensor draw(const SampleArguments& arguments, inference::Pipeline& pipeline,
            std::span<const inference::SampleRequest> requests) {
    if (!pipeline.is_diffusers()) {
        core::Progress progress("sampling", arguments.count, "samples");
        return pipeline.sample(requests, [&](std::int64_t done) { progress.update(done); });
    }
    core::Progress progress("sampling", arguments.count * pipeline.sampling().evaluations(),
                            "evaluations");
    std::int64_t done = 0;
    return pipeline.sample(requests, {}, [&] { progress.update(++done); });
}

/// The content of the files that samples follow from, beside the model's.
ImageText hashes_of_files(const SampleArguments& arguments) {
    ImageText hashes;
    if (!arguments.noise.empty()) hashes["noise"] = core::sha256_of_file(arguments.noise);
    std::vector<std::string> deltas;
    for (const models::LowRankFile& file : low_rank_files(arguments.low_rank))
        deltas.push_back(fmt::format("{}:{}", core::sha256_of_file(file.path), file.scale));
    if (!deltas.empty()) hashes["low_rank"] = fmt::format("{}", fmt::join(deltas, ","));
    return hashes;
}

/// The metadata of image i. `hashed`: with the hash of the weights, which must be read for it.
ImageText text_of(const SampleArguments& arguments, inference::Pipeline& pipeline,
                  const inference::SampleRequest& request, bool hashed = true) {
    const std::int64_t student = pipeline.student_of(request.condition);
    serving::ImageOrigin origin = serving::image_origin(
        pipeline, student,
        pipeline.is_diffusers() || !hashed ? "" : pipeline.hash_of_student(student));
    origin.request = request;
    ImageText text = serving::image_metadata(origin);
    text.insert(arguments.files.begin(), arguments.files.end());
    return text;
}

/// The metadata of a grid of all images.
ImageText text_of_all(const SampleArguments& arguments, inference::Pipeline& pipeline,
                      std::span<const inference::SampleRequest> requests) {
    ImageText text = text_of(arguments, pipeline, requests.front());
    text["number"] = fmt::format("0-{}", requests.size() - 1);
    if (pipeline.reads_prompts()) return text;
    for (const char* key : {"class", "class_name", "student"}) text.erase(key);
    text["model_hash"] = pipeline.hash();
    text["classes"] = fmt::format("{}", fmt::join(inference::classes_of(requests), ","));
    return text;
}

void write(const SampleArguments& arguments, inference::Pipeline& pipeline,
           std::span<const inference::SampleRequest> requests, const Tensor& user) {
    std::vector<std::int64_t> labels;
    if (!pipeline.reads_prompts()) labels = inference::classes_of(requests);
    const ImageFormat format = image_format(arguments.out);
    if (pipeline.decoded_spec().kind == data::SampleSpec::Kind::points &&
        format != ImageFormat::npz)
        return write_image(arguments.out, format,
                           report::scatter_image(metrics::points_of(user), labels, scatter_side),
                           {});
    write_samples(arguments.out, user,
                  {.texts =
                       [&](std::int64_t i) {
                           return text_of(arguments, pipeline,
                                          requests[static_cast<std::size_t>(i)]);
                       },
                   .grid_text = [&] { return text_of_all(arguments, pipeline, requests); },
                   .labels = labels,
                   .columns = arguments.columns,
                   .default_columns = pipeline.reads_prompts() ? prompt_columns : classes_per_row});
}

nlohmann::json summary(const SampleArguments& arguments, inference::Pipeline& pipeline,
                       const inference::Condition& condition) {
    nlohmann::json json{{"out", arguments.out},
                        {"count", arguments.count},
                        {"seed", arguments.seed},
                        {"evaluations", pipeline.sampling().evaluations()}};
    if (pipeline.is_diffusers()) return json;
    if (!pipeline.reads_prompts()) {
        json["model_hash"] = pipeline.hash();
        return json;
    }
    const auto owner = pipeline.route({&condition, 1}).front();
    json.update({{"student", owner.student},
                 {"margin", owner.margin},
                 {"model_hash", pipeline.hash_of_student(owner.student)}});
    return json;
}

/// Draws the shard's batches into a folder that it shares with the other shards.
std::int64_t write_shard(const SampleArguments& arguments, inference::Pipeline& pipeline,
                         std::span<const inference::SampleRequest> requests,
                         const core::Shard& shard) {
    const SharedPictures pictures(arguments.out, arguments.count);
    const auto request = [&](std::int64_t i) { return requests[static_cast<std::size_t>(i)]; };
    // Without the hashes of weights, which need not be read for pictures of other shards.
    pictures.check_some(
        [&](std::int64_t i) { return text_of(arguments, pipeline, request(i), false); });
    const auto batches = pipeline.batches(requests);
    std::vector<std::vector<std::int64_t>> own;
    std::int64_t total = 0, done = 0;
    for (std::size_t unit = 0; unit < batches.size(); ++unit) {
        if (!shard.owns(static_cast<std::int64_t>(unit))) continue;
        total += static_cast<std::int64_t>(batches[unit].size());
        own.push_back(batches[unit]);
    }
    if (own.empty())
        core::log::info(
            "shard {} has nothing to do: {} samples are drawn in {} batches, which are not divided",
            shard.name(), requests.size(), batches.size());
    core::Progress progress("sampling", total, "samples");
    const SharedPictures::Texts texts = [&](std::int64_t i) {
        return text_of(arguments, pipeline, request(i));
    };
    for (const auto& batch : own) {
        if (!pictures.hold(batch, texts)) {
            std::vector<inference::SampleRequest> together;
            for (const std::int64_t i : batch) together.push_back(request(i));
            try {
                pictures.write(batch, pipeline.sample(together), texts);
            } catch (const core::Interrupted&) {
                throw core::Interrupted(
                    "interrupted; finished pictures are kept, run the same command again to go on");
            }
        }
        progress.update(done += static_cast<std::int64_t>(batch.size()));
    }
    core::log::info("shard {}: {} pictures; {} of {} are in {}", shard.name(), total,
                    pictures.there(), arguments.count, arguments.out);
    return total;
}

void check_shard(const SampleArguments& arguments, ImageFormat format) {
    if (format != ImageFormat::folder)
        throw core::UsageError(
            fmt::format("--shard: {} is one file of all samples; name a folder, into which each "
                        "shard writes its pictures",
                        arguments.out));
    if (arguments.columns)
        throw core::UsageError("--columns is for grids, and --shard for folders");
}

void sample(SampleArguments& arguments) {
    const ImageFormat format = image_format(arguments.out);
    arguments.engine.chosen();  // throws on a wrong combination
    std::optional<core::Shard> shard;
    if (!arguments.shard.empty()) {
        shard = core::shard_of(arguments.shard);
        check_shard(arguments, format);
    }
    arguments.model = models::model_at(arguments.model).string();
    if (!shard) check_image_output(arguments.out, format);
    const auto pipeline = inference::Pipeline::load(arguments.model, pipeline_options(arguments));
    check_output(arguments, *pipeline);
    const auto requests = requests_of(arguments, *pipeline);
    arguments.files = hashes_of_files(arguments);
    warn_about_prompts(arguments, *pipeline);
    nlohmann::json more = nlohmann::json::object();
    if (shard)
        more = {{"shard", shard->name()},
                {"written", write_shard(arguments, *pipeline, requests, *shard)}};
    else write(arguments, *pipeline, requests, draw(arguments, *pipeline, requests));
    if (!arguments.json) return;
    nlohmann::json about = summary(arguments, *pipeline, requests.front().condition);
    about.update(more);
    std::cout << core::json_text(about) << std::endl;
}

}  // namespace

void add_sample_command(CLI::App& app) {
    auto arguments = std::make_shared<SampleArguments>();
    CLI::App* command = app.add_subcommand("sample", "Draw samples from a model or an ensemble");
    command
        ->add_option("MODEL", arguments->model,
                     "a model, an ensemble, a run (its ensemble) or a diffusers directory")
        ->required();
    command->add_option("--count", arguments->count, "how many")
        ->check(CLI::Range(std::int64_t{1}, std::int64_t{100'000'000}));
    command
        ->add_option("--seed", arguments->seed,
                     "sample i follows from the seed, i and its class alone")
        ->check(seed_range());
    command->add_option("--class", arguments->classes,
                        "classes by name or id, as in bag,3, repeated in order up to the count; "
                        "without: drawn from the training prior");
    command
        ->add_option(
            "--sampler", arguments->sampler,
            "of models and teachers one-step, heun, ddim or stochastic; of diffusers directories "
            "ddim, dpm++ or euler; without: one step for students, 18 Heun steps for "
            "teachers, 25 of dpm++ for Stable Diffusion 1 and 2, what the scheduler names for "
            "other "
            "diffusers directories; EDM's stochastic sampler takes "
            "settings, e.g. stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003")
        ->type_name("{one-step,heun,ddim,stochastic,dpm++,euler}");
    command
        ->add_option("--steps", arguments->steps,
                     "steps of heun, ddim, stochastic, dpm++ and euler, with --sampler or --prompt")
        ->check(CLI::Range(1, 10000));
    command->add_option("--noise", arguments->noise,
                        "safetensors with noise [N,...], standard normal, from which the samples "
                        "are drawn instead of the seed's; sample i from row i");
    arguments->text.add_to(*command);
    add_low_rank_option(*command, arguments->low_rank);
    arguments->engine.add_to(*command);
    command
        ->add_option("--out", arguments->out,
                     "x.png, x.jpg, x.webp: one image or a grid; x.npz: arrays; a name without "
                     "ending: a folder of PNGs")
        ->required();
    command
        ->add_option("--columns", arguments->columns,
                     "images per row of a grid; without: 10, or 8 with --prompt, and about square "
                     "beyond 100 images")
        ->check(CLI::Range(1, 100'000));
    add_shard_option(*command, arguments->shard,
                     "pictures of a folder that all shards together write");
    command->add_flag("--json", arguments->json, "say what was written as JSON on standard output");
    command->footer(
        "Examples:\n  atelier sample models/fashion-mnist/k4 --count 100 --seed 1 --out grid.png\n "
        " atelier sample models/fashion-mnist/k4 "
        "--count 8 --class bag,sneaker,7,9 --out samples.npz\n  atelier sample "
        "models/fashion-mnist/teacher --sampler heun --steps 18 --count 16 --out "
        "teacher.png\n  atelier sample models/fashion-mnist/teacher --sampler "
        "stochastic:64,S_churn=10 --count 16 --out churned.png\n"
        "  atelier sample models/captions --prompt \"two small white sneakers on black\" --count "
        "16 --out sneakers.png\n  atelier sample stable-diffusion-v1-5 --prompt \"a boat at dawn\" "
        "--negative blurry --guidance 7.5 --seed 1 --out boat.png");
    command->callback([arguments] { sample(*arguments); });
}

}  // namespace atelier::cli
