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
                            const fs::path& folder, const inference::Engine& engine,
                            const core::Shard& mine) {
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
    const auto total = static_cast<std::int64_t>(prompts.size());
    const auto missing_from = [&](std::int64_t first, std::int64_t count) {
        std::int64_t missing = 0;
        for (std::int64_t i = first; i < first + count; ++i)
            missing += !fs::exists(image_path(folder, i));
        return missing;
    };
    const std::int64_t existing = total - missing_from(0, total);
    if (existing > 0)
        core::log::info("{}: {} of {} images exist already", folder.string(), existing, total);
    core::Progress progress("sampling", total, "images", existing);
    std::int64_t done = existing;
    for (std::int64_t first = 0; first < total; first += images_per_batch) {
        const std::int64_t count = std::min(images_per_batch, total - first),
                           missing = missing_from(first, count);
        if (missing == 0 || !mine.owns(first / images_per_batch)) continue;
        check_no_stop();
        std::vector<inference::SampleRequest> batch;
        for (std::int64_t i = first; i < first + count; ++i)
            batch.push_back({static_cast<std::uint64_t>(settings.seed), i,
                             prompts[static_cast<std::size_t>(i)]});
        const Tensor pixels = pipeline->decode(pipeline->draw(batch, check_no_stop));
        for (std::int64_t i = 0; i < count; ++i) {
            const fs::path path = image_path(folder, first + i);
            if (fs::exists(path)) continue;
            core::Image image = data::image_of(pixels[i]);
            if (settings.side > 0 &&
                (image.width != settings.side || image.height != settings.side))
                image = core::centre_crop(image, settings.side, core::ResizeFilter::lanczos);
            core::write_png(path, image,
                            {{"prompt", prompts[static_cast<std::size_t>(first + i)]},
                             {"seed", std::to_string(settings.seed)},
                             {"number", std::to_string(first + i)}});
        }
        progress.update(done += missing);
    }
    return {pipeline->parameters_of_student(0), description.at("evaluations").get<std::int64_t>(),
            missing_from(0, total)};
}

}  // namespace atelier::cli
