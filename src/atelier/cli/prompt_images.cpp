#include "atelier/cli/prompt_images.h"

#include "atelier/backends/torch/deterministic.h"
#include "atelier/core/error.h"
#include "atelier/core/hash.h"
#include "atelier/core/image_file.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/core/progress.h"
#include "atelier/core/resize.h"
#include "atelier/core/signals.h"
#include "atelier/inference/pipeline.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t images_per_batch = 16;

/// What determines the images besides the prompts.
nlohmann::json description_of(inference::Pipeline& pipeline) {
    return {{"hashes", pipeline.hashes()},
            {"guidance", *pipeline.guidance()},
            {"sampler", inference::name_of(pipeline.sampling())},
            {"evaluations", pipeline.sampling().evaluations()},
            {"engine", inference::name_of(pipeline.engine().kind)},
            {"precision", inference::name_of(pipeline.engine().precision)}};
}

fs::path image_path(const fs::path& folder, std::int64_t number) {
    return folder / fmt::format("{:06}.png", number);
}

/// Creates the folder with its description, or checks that an existing one has the same
/// description.
void begin_folder(const fs::path& folder, const nlohmann::json& description) {
    const fs::path file = folder / "pictures.json";
    if (!fs::exists(file)) {
        fs::create_directories(folder);
        core::write_json(file, description);
    } else if (core::read_json(file) != description) {
        throw core::UsageError(folder.string() +
                               ": holds images of another model, other captions, another seed or "
                               "size; delete it, or name another --out");
    }
}

void check_no_stop() {
    if (core::stop_requested())
        throw core::Interrupted(
            "interrupted; finished images are kept, run the same command again to go on");
}

}  // namespace

GenerationCost draw_prompts(const PromptImages& settings, std::span<const std::string> prompts,
                            const fs::path& folder, const inference::Engine& engine) {
    const backends::Deterministic deterministic;
    const auto pipeline =
        inference::Pipeline::load(settings.model, {.engine = engine,
                                                   .sampler = settings.sampler,
                                                   .steps = settings.steps,
                                                   .guidance = settings.guidance});
    nlohmann::json description = description_of(*pipeline);
    description.update({{"captions", core::sha256_of_lines(prompts)},
                        {"seed", settings.seed},
                        {"side", settings.side}});
    if (settings.side > 0) description["filter"] = core::name_of(core::ResizeFilter::lanczos);
    begin_folder(folder, description);
    std::vector<std::int64_t> missing;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(prompts.size()); ++i) {
        if (!fs::exists(image_path(folder, i))) missing.push_back(i);
    }
    const auto total = static_cast<std::int64_t>(prompts.size()),
               existing = total - static_cast<std::int64_t>(missing.size());
    if (existing > 0)
        core::log::info("{}: {} of {} images exist already", folder.string(), existing, total);
    core::Progress progress("sampling", total, "images", existing);
    for (std::size_t first = 0; first < missing.size(); first += images_per_batch) {
        check_no_stop();
        const std::vector<std::int64_t> numbers(
            missing.begin() + static_cast<std::ptrdiff_t>(first),
            missing.begin() +
                static_cast<std::ptrdiff_t>(std::min(first + images_per_batch, missing.size())));
        std::vector<inference::SampleRequest> batch;
        for (const std::int64_t i : numbers)
            batch.push_back({static_cast<std::uint64_t>(settings.seed), i,
                             prompts[static_cast<std::size_t>(i)]});
        const Tensor pixels = pipeline->decode(pipeline->draw(batch, check_no_stop));
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            core::Image image = data::image_of(pixels[static_cast<std::int64_t>(i)]);
            if (settings.side > 0 &&
                (image.width != settings.side || image.height != settings.side))
                image = core::centre_crop(image, settings.side, core::ResizeFilter::lanczos);
            core::write_png(image_path(folder, numbers[i]), image,
                            {{"prompt", inference::prompt_of(batch[i].condition)},
                             {"seed", std::to_string(settings.seed)},
                             {"number", std::to_string(numbers[i])}});
        }
        progress.update(existing + static_cast<std::int64_t>(first + numbers.size()));
    }
    return {pipeline->parameters_of_student(0), description.at("evaluations").get<std::int64_t>()};
}

}  // namespace atelier::cli
