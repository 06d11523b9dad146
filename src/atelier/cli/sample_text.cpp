#include "atelier/cli/sample_text.h"

#include <iostream>

#include "atelier/backends/torch/deterministic.h"
#include "atelier/cli/image_output.h"
#include "atelier/conditions/prompt_hints.h"
#include "atelier/core/error.h"
#include "atelier/core/progress.h"
#include "atelier/inference/text_to_image.h"

namespace atelier::cli {

namespace {

std::map<std::string, std::string> text_of(const TextRequest& request, const std::string& prompt,
                                           const inference::TextSampling& sampling,
                                           const std::string& number) {
    return {
        {"Software", "atelier " ATELIER_VERSION},
        {"seed", std::to_string(request.seed)},
        {"number", number},
        {"prompt", prompt},
        {"negative", sampling.negative},
        {"sampler", sampling.method == inference::TextSampling::Method::ddim ? "ddim" : "dpm++"},
        {"evaluations", std::to_string(sampling.steps)},
        {"guidance", fmt::format("{}", sampling.guidance)}};
}

}  // namespace

void sample_text(const TextRequest& request, const TextOptions& options,
                 const inference::Engine& engine) {
    if (!options.prompt)
        throw core::UsageError("--prompt: say what to draw; " + request.model +
                               " is a diffusers directory");
    inference::TextSampling sampling;
    if (!request.sampler.empty())
        sampling.method = inference::text_sampling_method(request.sampler);
    sampling.steps = request.steps.value_or(sampling.steps);
    sampling.guidance = options.guidance.value_or(sampling.guidance);
    sampling.negative = options.negative.value_or("");
    sampling.height = options.height.value_or(0);
    sampling.width = options.width.value_or(0);
    const backends::Deterministic deterministic;
    inference::StableDiffusion model(request.model, engine);
    conditions::warn_about_prompt("--prompt", *options.prompt, model.tokenizer());
    if (!sampling.negative.empty())
        conditions::warn_about_prompt("--negative", sampling.negative, model.tokenizer());
    core::Progress progress("sampling", request.count * sampling.steps, "evaluations");
    std::vector<Tensor> images;
    for (std::int64_t i = 0; i < request.count; ++i) {
        const auto on_progress = [&](std::int64_t done) {
            progress.update(i * sampling.steps + done);
        };
        images.push_back(
            inference::pixels_of(draw(model, *options.prompt, sampling,
                                      static_cast<std::uint64_t>(request.seed), i, on_progress)));
    }
    write_images(
        request.out, at::cat(images),
        [&](const std::string& number) {
            return text_of(request, *options.prompt, sampling, number);
        },
        request.columns);
    if (request.json) {
        std::cout << nlohmann::json{{"out", request.out},
                                    {"count", request.count},
                                    {"seed", request.seed},
                                    {"evaluations", sampling.steps}}
                         .dump()
                  << std::endl;
    }
}

}  // namespace atelier::cli
