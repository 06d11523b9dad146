#include "atelier/cli/sample_text.h"

#include <iostream>

#include "atelier/cli/picture_files.h"
#include "atelier/cli/prompt_hints.h"
#include "atelier/core/error.h"
#include "atelier/core/progress.h"
#include "atelier/inference/text_to_image.h"
#include "atelier/ops/deterministic.h"

namespace atelier::cli {

namespace {

std::map<std::string, std::string> text_of(const TextRequest& request, const std::string& prompt, const inference::TextSampling& how, const std::string& number) {
    return {{"Software", "atelier " ATELIER_VERSION}, {"seed", std::to_string(request.seed)}, {"number", number}, {"prompt", prompt}, {"negative", how.negative},
            {"sampler", how.method == inference::TextSampling::Method::ddim ? "ddim" : "dpm++"}, {"evaluations", std::to_string(how.steps)},
            {"guidance", fmt::format("{}", how.guidance)}};
}

}  // namespace

void sample_text(const TextRequest& request, const TextOptions& options, const inference::Engine& engine) {
    if (!options.prompt) throw core::UsageError("--prompt: say what to draw; " + request.model + " is a diffusers directory");
    inference::TextSampling how;
    if (!request.sampler.empty()) how.method = inference::text_sampling_method(request.sampler);
    how.steps = request.steps.value_or(how.steps);
    how.guidance = options.guidance.value_or(how.guidance);
    how.negative = options.negative.value_or("");
    how.height = options.height.value_or(0);
    how.width = options.width.value_or(0);
    const ops::Deterministic deterministic;
    inference::StableDiffusion model(request.model, engine);
    hint_at_prompt("--prompt", *options.prompt, model.tokenizer());
    if (!how.negative.empty()) hint_at_prompt("--negative", how.negative, model.tokenizer());
    core::Progress progress("sampling", request.count * how.steps, "evaluations");
    std::vector<Tensor> images;
    for (std::int64_t i = 0; i < request.count; ++i) {
        const auto tell = [&](std::int64_t done) { progress.update(i * how.steps + done); };
        images.push_back(inference::pixels_of(draw(model, *options.prompt, how, static_cast<std::uint64_t>(request.seed), i, tell)));
    }
    write_pictures(request.out, at::cat(images), [&](const std::string& number) { return text_of(request, *options.prompt, how, number); }, request.columns);
    if (request.json) {
        std::cout << nlohmann::json{{"out", request.out}, {"count", request.count}, {"seed", request.seed}, {"evaluations", how.steps}}.dump() << std::endl;
    }
}

}  // namespace atelier::cli
