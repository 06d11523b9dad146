#include "atelier/cli/sample_prompted.h"

#include <iostream>

#include "atelier/cli/image_output.h"
#include "atelier/conditions/prompt_hints.h"
#include "atelier/core/error.h"
#include "atelier/core/progress.h"
#include "atelier/inference/generator.h"
#include "atelier/inference/prompted_generator.h"
#include "atelier/serving/image_metadata.h"

namespace atelier::cli {

namespace {

constexpr std::int64_t samples_per_batch = 256;

std::map<std::string, std::string> text_of(inference::PromptedGenerator& generator,
                                           const std::string& prompt, std::int64_t seed,
                                           const std::string& number, std::int64_t student) {
    auto text = serving::image_metadata({.draw = {static_cast<std::uint64_t>(seed), 0, 0},
                                         .student = student,
                                         .model_hash = generator.hash_of_student(student),
                                         .sampling = generator.sampling(),
                                         .engine = generator.engine(),
                                         .class_names = {},
                                         .prompt = prompt,
                                         .guidance = generator.guidance()});
    text["number"] = number;
    return text;
}

}  // namespace

void sample_prompted(const TextRequest& request, const TextOptions& options,
                     const inference::Engine& engine) {
    if (!options.prompt)
        throw core::UsageError("--prompt: say what to draw; " + request.model + " reads prompts");
    if (options.negative || options.height || options.width)
        throw core::UsageError("--negative, --height and --width are for diffusers directories; " +
                               request.model + " is none");
    inference::PromptedGenerator generator(request.model,
                                           inference::sampling_of(request.sampler, request.steps),
                                           options.guidance, engine);
    conditions::warn_about_prompt("--prompt", *options.prompt, generator.encoder().tokenizer);
    core::Progress progress("sampling", request.count, "samples");
    std::vector<Tensor> parts;
    for (std::int64_t first = 0; first < request.count; first += samples_per_batch) {
        inference::PromptSampleRequest batch{static_cast<std::uint64_t>(request.seed), {}, {}};
        for (std::int64_t i = first; i < std::min(first + samples_per_batch, request.count); ++i) {
            batch.numbers.push_back(i);
            batch.prompts.push_back(*options.prompt);
        }
        parts.push_back(generator.draw(batch));
        progress.update(first + static_cast<std::int64_t>(batch.numbers.size()));
    }
    const Tensor pixels = generator.to_pixels(at::cat(parts));
    const auto decision = generator.route(generator.encoder().embed({&*options.prompt, 1})[0]);
    write_images(
        request.out, pixels,
        [&](const std::string& number) {
            return text_of(generator, *options.prompt, request.seed, number, decision.student);
        },
        request.columns);
    if (request.json) {
        std::cout << nlohmann::json{{"out", request.out},
                                    {"count", request.count},
                                    {"seed", request.seed},
                                    {"evaluations", generator.sampling().evaluations()},
                                    {"student", decision.student},
                                    {"margin", decision.margin},
                                    {"model_hash", generator.hash_of_student(decision.student)}}
                         .dump()
                  << std::endl;
    }
}

}  // namespace atelier::cli
