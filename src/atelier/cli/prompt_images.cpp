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
#include "atelier/inference/generator.h"
#include "atelier/inference/prompted_generator.h"
#include "atelier/inference/text_to_image.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t images_per_batch = 16;

/// Generates images, uint8 [n,H,W,C], for prompts with their sample numbers.
class PromptSampler {
public:
    virtual ~PromptSampler() = default;
    virtual Tensor draw(const std::vector<std::int64_t>& numbers,
                        const std::vector<std::string>& prompts) = 0;
    virtual nlohmann::json description() = 0;
    virtual std::int64_t parameters() = 0;  // of the network that generates one image
};

class EnsembleSampler final : public PromptSampler {
public:
    EnsembleSampler(const PromptImages& settings, const inference::Engine& engine)
        : seed_(static_cast<std::uint64_t>(settings.seed)),
          generator_(settings.model, inference::sampling_of(settings.sampler, settings.steps),
                     settings.guidance, engine) {}

    Tensor draw(const std::vector<std::int64_t>& numbers,
                const std::vector<std::string>& prompts) override {
        return generator_.to_pixels(generator_.draw({seed_, numbers, prompts}));
    }
    nlohmann::json description() override {
        return {{"hashes", generator_.hashes()},
                {"guidance", generator_.guidance()},
                {"sampler", inference::name_of(generator_.sampling())},
                {"evaluations", generator_.sampling().evaluations()},
                {"engine", inference::name_of(generator_.engine().kind)},
                {"precision", inference::name_of(generator_.engine().precision)}};
    }
    std::int64_t parameters() override { return generator_.parameters_of_student(0); }

private:
    std::uint64_t seed_;
    inference::PromptedGenerator generator_;
};

class DiffusersSampler final : public PromptSampler {
public:
    DiffusersSampler(const PromptImages& settings, const inference::Engine& engine)
        : seed_(static_cast<std::uint64_t>(settings.seed)),
          model_(settings.model, engine),
          engine_(engine) {
        if (!settings.sampler.empty())
            sampling_.method = inference::text_sampling_method(settings.sampler);
        sampling_.steps = settings.steps.value_or(sampling_.steps);
        sampling_.guidance = settings.guidance.value_or(sampling_.guidance);
    }

    Tensor draw(const std::vector<std::int64_t>& numbers,
                const std::vector<std::string>& prompts) override {
        std::vector<Tensor> images;
        for (std::size_t i = 0; i < numbers.size(); ++i)
            images.push_back(inference::pixels_of(inference::draw(
                model_, prompts[i], sampling_, seed_, numbers[i], [](std::int64_t) {})));
        return at::cat(images);
    }
    nlohmann::json description() override {
        std::string weights;
        for (const auto& part :
             {model_.directory().unet_weights(), model_.directory().vae_weights(),
              model_.directory().text_weights()}) {
            for (const fs::path& file : part.files()) weights += core::sha256_of_file(file);
        }
        return {{"hashes", {core::sha256(weights)}},
                {"guidance", sampling_.guidance},
                {"sampler",
                 sampling_.method == inference::TextSampling::Method::ddim ? "ddim" : "dpm++"},
                {"evaluations", sampling_.steps},
                {"engine", inference::name_of(engine_.kind)},
                {"precision", inference::name_of(engine_.precision)}};
    }
    std::int64_t parameters() override { return model_.directory().unet_weights().count(); }

private:
    std::uint64_t seed_;
    inference::StableDiffusion model_;
    inference::Engine engine_;
    inference::TextSampling sampling_;
};

std::unique_ptr<PromptSampler> open_sampler(const PromptImages& settings,
                                            const inference::Engine& engine) {
    if (models::is_diffusers_directory(settings.model))
        return std::make_unique<DiffusersSampler>(settings, engine);
    return std::make_unique<EnsembleSampler>(settings, engine);
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

}  // namespace

bool can_draw_prompts(const fs::path& model) {
    return models::is_diffusers_directory(model) || inference::reads_prompts(model);
}

GenerationCost draw_prompts(const PromptImages& settings, std::span<const std::string> prompts,
                            const fs::path& folder, const inference::Engine& engine) {
    const backends::Deterministic deterministic;
    const auto prompt_sampler = open_sampler(settings, engine);
    nlohmann::json description = prompt_sampler->description();
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
        if (core::stop_requested())
            throw core::Interrupted(
                "interrupted; finished images are kept, run the same command again to "
                "go on");
        const std::vector<std::int64_t> numbers(
            missing.begin() + static_cast<std::ptrdiff_t>(first),
            missing.begin() +
                static_cast<std::ptrdiff_t>(std::min(first + images_per_batch, missing.size())));
        std::vector<std::string> batch;
        for (const std::int64_t i : numbers) batch.push_back(prompts[static_cast<std::size_t>(i)]);
        const Tensor pixels = prompt_sampler->draw(numbers, batch);
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            core::Image image = data::image_of(pixels[static_cast<std::int64_t>(i)]);
            if (settings.side > 0 &&
                (image.width != settings.side || image.height != settings.side))
                image = core::centre_crop(image, settings.side, core::ResizeFilter::lanczos);
            core::write_png(image_path(folder, numbers[i]), image,
                            {{"prompt", batch[i]},
                             {"seed", std::to_string(settings.seed)},
                             {"number", std::to_string(numbers[i])}});
        }
        progress.update(existing + static_cast<std::int64_t>(first + numbers.size()));
    }
    return {prompt_sampler->parameters(), description.at("evaluations").get<std::int64_t>()};
}

}  // namespace atelier::cli
