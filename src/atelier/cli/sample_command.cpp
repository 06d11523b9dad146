#include <iostream>

#include <fmt/ranges.h>

#include "atelier/cli/class_ids.h"
#include "atelier/cli/commands.h"
#include "atelier/cli/engine_options.h"
#include "atelier/cli/image_output.h"
#include "atelier/cli/sample_prompted.h"
#include "atelier/cli/sample_text.h"
#include "atelier/cli/usage.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/image_file.h"
#include "atelier/core/log.h"
#include "atelier/core/npz.h"
#include "atelier/core/progress.h"
#include "atelier/inference/generator.h"
#include "atelier/inference/prompted_generator.h"
#include "atelier/metrics/two_d.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/identify_path.h"
#include "atelier/report/charts.h"
#include "atelier/serving/image_metadata.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

struct SampleArguments {
    std::string model, out, sampler;
    EngineOptions engine;
    std::int64_t count = 1, seed = 0;
    std::optional<std::int64_t> steps;
    std::optional<std::int64_t> columns;
    std::vector<std::string> classes;
    TextOptions text;
    bool json = false;
};

constexpr std::int64_t classes_per_row = 10;
constexpr int scatter_side = 640;

std::span<const std::byte> bytes_of(const Tensor& tensor) {
    return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

std::map<std::string, std::string> text_of(inference::Generator& generator,
                                           const SampleArguments& arguments, std::int64_t number,
                                           std::int64_t label) {
    const std::int64_t student = generator.student_of(label);
    return serving::image_metadata(
        {.draw = {static_cast<std::uint64_t>(arguments.seed), number, label},
         .student = student,
         .model_hash = generator.hash_of_student(student),
         .sampling = generator.sampling(),
         .engine = generator.engine(),
         .class_names = generator.spec().class_names});
}

void write_npz(const SampleArguments& arguments, const Tensor& user,
               const std::vector<std::int64_t>& labels) {
    const Tensor label_tensor = at::tensor(labels, at::kLong);
    const core::DType type = user.scalar_type() == at::kByte ? core::DType::U8 : core::DType::F32;
    core::write_npz(arguments.out, {{"arr_0", type, user.sizes().vec(), bytes_of(user)},
                                    {"labels", core::DType::I64, label_tensor.sizes().vec(),
                                     bytes_of(label_tensor)}});
}

void write_grid(inference::Generator& generator, const SampleArguments& arguments,
                const Tensor& user, const std::vector<std::int64_t>& labels) {
    const ImageFormat format = image_format(arguments.out);
    if (generator.spec().kind == data::SampleSpec::Kind::points)
        return write_image(arguments.out, format,
                           report::scatter_image(metrics::points_of(user), labels, scatter_side),
                           {});
    const std::vector<core::Image> images = data::images_of(user);
    auto text = text_of(generator, arguments, 0, labels.front());
    if (labels.size() > 1) {
        text["number"] = fmt::format("0-{}", labels.size() - 1);
        for (const char* key : {"class", "class_name", "student"}) text.erase(key);
        text["model_hash"] = inference::hash_of(generator);
        text["classes"] = fmt::format("{}", fmt::join(labels, ","));
    }
    const std::int64_t columns = grid_columns(format, user.size(0), user.size(1), user.size(2),
                                              arguments.columns, classes_per_row);
    write_image(arguments.out, format, core::grid(images, static_cast<int>(columns)), text);
}

void write_folder(inference::Generator& generator, const SampleArguments& arguments,
                  const Tensor& user, const std::vector<std::int64_t>& labels) {
    core::create_directory_atomically(arguments.out, [&](const fs::path& folder) {
        for (std::int64_t i = 0; i < user.size(0); ++i) {
            const std::int64_t label = labels[static_cast<std::size_t>(i)];
            core::write_png(folder / fmt::format("{:06}.png", i), data::image_of(user[i]),
                            text_of(generator, arguments, i, label));
        }
    });
}

/// Checks that would otherwise fail only after sampling.
void check_output(const SampleArguments& arguments, const data::SampleSpec& data) {
    const ImageFormat format = image_format(arguments.out);
    if (data.kind == data::SampleSpec::Kind::points) {
        if (format == ImageFormat::folder)
            throw core::UsageError("--out: points are written as .npz or .png, not as a folder");
        return;
    }
    if (format == ImageFormat::npz || format == ImageFormat::folder) return;
    grid_columns(format, arguments.count, data.shape.at(1), data.shape.at(2), arguments.columns,
                 classes_per_row);
}

TextRequest text_request(const SampleArguments& arguments) {
    if (!arguments.classes.empty())
        throw core::UsageError("--class: " + arguments.model + " reads prompts; ask with --prompt");
    return {arguments.model, arguments.out,   arguments.sampler, arguments.count,
            arguments.seed,  arguments.steps, arguments.columns, arguments.json};
}

void sample(SampleArguments& arguments) {
    const ImageFormat format = image_format(arguments.out);
    const inference::Engine engine = arguments.engine.chosen();
    arguments.model = models::model_at(arguments.model).string();
    check_image_output(arguments.out, format);
    if (models::is_diffusers_directory(arguments.model))
        return sample_text(text_request(arguments), arguments.text, engine);
    if (inference::reads_prompts(arguments.model))
        return sample_prompted(text_request(arguments), arguments.text, engine);
    if (arguments.text.given())
        throw core::UsageError("--prompt and its like are for models that read prompts; " +
                               arguments.model + " has classes");
    const auto generator = inference::open_generator(
        arguments.model, inference::sampling_of(arguments.sampler, arguments.steps), engine);
    check_output(arguments, generator->spec());
    const auto classes =
        class_ids(arguments.classes, generator->spec().class_names, generator->prior().classes());
    const auto request = inference::sample_request(
        arguments.count, static_cast<std::uint64_t>(arguments.seed), classes, generator->prior());
    core::Progress progress("sampling", arguments.count, "samples");
    const Tensor samples =
        inference::draw_all(*generator, request, [&](std::int64_t done) { progress.update(done); });
    const Tensor user = data::to_user_space(generator->spec(), samples).contiguous();
    if (format == ImageFormat::npz) write_npz(arguments, user, request.classes);
    else if (format == ImageFormat::folder)
        write_folder(*generator, arguments, user, request.classes);
    else write_grid(*generator, arguments, user, request.classes);
    if (arguments.json) {
        std::cout << nlohmann::json{{"out", arguments.out},
                                    {"count", arguments.count},
                                    {"seed", arguments.seed},
                                    {"evaluations", generator->sampling().evaluations()},
                                    {"model_hash", inference::hash_of(*generator)}}
                         .dump()
                  << std::endl;
    }
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
            "ddim or dpm++; without: one step for students, 18 Heun steps for "
            "teachers, 25 of dpm++ for diffusers directories; EDM's stochastic sampler takes "
            "settings, e.g. stochastic:256,S_churn=40,S_min=0.05,S_max=50,S_noise=1.003")
        ->type_name("{one-step,heun,ddim,stochastic,dpm++}");
    command
        ->add_option("--steps", arguments->steps,
                     "steps of heun, ddim, stochastic and dpm++, with --sampler or --prompt")
        ->check(CLI::Range(1, 10000));
    arguments->text.add_to(*command);
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
