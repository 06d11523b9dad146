#include "atelier/cli/prompt_pictures.h"

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
#include "atelier/ops/deterministic.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t prompts_together = 16;

/// Draws pictures, uint8 [n,H,W,C], for some prompts by their numbers.
class Painter {
public:
    virtual ~Painter() = default;
    virtual Tensor draw(const std::vector<std::int64_t>& numbers, const std::vector<std::string>& prompts) = 0;
    virtual nlohmann::json about() = 0;
    virtual std::int64_t parameters() = 0;  // of the network that draws a picture
};

class EnsemblePainter final : public Painter {
public:
    EnsemblePainter(const PromptPictures& wanted, const inference::Engine& engine)
        : seed_(static_cast<std::uint64_t>(wanted.seed)), generator_(wanted.model, inference::sampling_of(wanted.sampler, wanted.steps), wanted.guidance, engine) {}

    Tensor draw(const std::vector<std::int64_t>& numbers, const std::vector<std::string>& prompts) override {
        return generator_.pictures(generator_.draw({seed_, numbers, prompts}));
    }
    nlohmann::json about() override {
        return {{"hashes", generator_.hashes()}, {"guidance", generator_.guidance()}, {"sampler", inference::name_of(generator_.sampling())},
                {"evaluations", generator_.sampling().evaluations()}, {"engine", inference::name_of(generator_.engine().kind)},
                {"precision", inference::name_of(generator_.engine().precision)}};
    }
    std::int64_t parameters() override { return generator_.parameters_of_student(0); }

private:
    std::uint64_t seed_;
    inference::PromptedGenerator generator_;
};

class DiffusersPainter final : public Painter {
public:
    DiffusersPainter(const PromptPictures& wanted, const inference::Engine& engine) : seed_(static_cast<std::uint64_t>(wanted.seed)), model_(wanted.model, engine), engine_(engine) {
        if (!wanted.sampler.empty()) how_.method = inference::text_sampling_method(wanted.sampler);
        how_.steps = wanted.steps.value_or(how_.steps);
        how_.guidance = wanted.guidance.value_or(how_.guidance);
    }

    Tensor draw(const std::vector<std::int64_t>& numbers, const std::vector<std::string>& prompts) override {
        std::vector<Tensor> images;
        for (std::size_t i = 0; i < numbers.size(); ++i) images.push_back(inference::pixels_of(inference::draw(model_, prompts[i], how_, seed_, numbers[i], [](std::int64_t) {})));
        return at::cat(images);
    }
    nlohmann::json about() override {
        std::string weights;
        for (const auto& part : {model_.directory().unet_weights(), model_.directory().vae_weights(), model_.directory().text_weights()}) {
            for (const fs::path& file : part.files()) weights += core::sha256_of_file(file);
        }
        return {{"hashes", {core::sha256(weights)}}, {"guidance", how_.guidance}, {"sampler", how_.method == inference::TextSampling::Method::ddim ? "ddim" : "dpm++"},
                {"evaluations", how_.steps}, {"engine", inference::name_of(engine_.kind)}, {"precision", inference::name_of(engine_.precision)}};
    }
    std::int64_t parameters() override { return model_.directory().unet_weights().count(); }

private:
    std::uint64_t seed_;
    inference::StableDiffusion model_;
    inference::Engine engine_;
    inference::TextSampling how_;
};

std::unique_ptr<Painter> painter_of(const PromptPictures& wanted, const inference::Engine& engine) {
    if (models::is_diffusers_directory(wanted.model)) return std::make_unique<DiffusersPainter>(wanted, engine);
    return std::make_unique<EnsemblePainter>(wanted, engine);
}

fs::path picture_file(const fs::path& folder, std::int64_t number) { return folder / fmt::format("{:06}.png", number); }

/// Begins a folder of pictures, or finds that it was begun for the same ones.
void begin(const fs::path& folder, const nlohmann::json& about) {
    const fs::path file = folder / "pictures.json";
    if (!fs::exists(file)) {
        fs::create_directories(folder);
        core::write_json(file, about);
    } else if (core::read_json(file) != about) {
        throw core::UsageError(folder.string() + ": holds pictures of another model, other captions, another seed or size; delete it, or name another --out");
    }
}

}  // namespace

bool draws_prompts(const fs::path& model) { return models::is_diffusers_directory(model) || inference::reads_prompts(model); }

PictureFacts draw_prompts(const PromptPictures& wanted, std::span<const std::string> prompts,
                          const fs::path& folder, const inference::Engine& engine) {
    const ops::Deterministic deterministic;
    const auto painter = painter_of(wanted, engine);
    nlohmann::json about = painter->about();
    about.update({{"captions", core::sha256_of_lines(prompts)}, {"seed", wanted.seed}, {"side", wanted.side}});
    if (wanted.side > 0) about["filter"] = core::name_of(core::ResizeFilter::lanczos);
    begin(folder, about);
    std::vector<std::int64_t> missing;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(prompts.size()); ++i) {
        if (!fs::exists(picture_file(folder, i))) missing.push_back(i);
    }
    const auto total = static_cast<std::int64_t>(prompts.size()), there = total - static_cast<std::int64_t>(missing.size());
    if (there > 0) core::log::info("{}: {} of {} pictures are there already", folder.string(), there, total);
    core::Progress progress("drawing", total, "pictures", there);
    for (std::size_t first = 0; first < missing.size(); first += prompts_together) {
        if (core::stop_requested()) throw core::Interrupted("interrupted; the pictures that are drawn are kept, run the same command again to go on");
        const std::vector<std::int64_t> numbers(missing.begin() + static_cast<std::ptrdiff_t>(first),
                                                missing.begin() + static_cast<std::ptrdiff_t>(std::min(first + prompts_together, missing.size())));
        std::vector<std::string> some;
        for (const std::int64_t i : numbers) some.push_back(prompts[static_cast<std::size_t>(i)]);
        const Tensor pixels = painter->draw(numbers, some);
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            core::Image image = models::image_of(pixels[static_cast<std::int64_t>(i)]);
            if (wanted.side > 0 && (image.width != wanted.side || image.height != wanted.side))
                image = core::square(image, wanted.side, core::ResizeFilter::lanczos);
            core::write_png(picture_file(folder, numbers[i]), image, {{"prompt", some[i]}, {"seed", std::to_string(wanted.seed)}, {"number", std::to_string(numbers[i])}});
        }
        progress.update(there + static_cast<std::int64_t>(first + numbers.size()));
    }
    return {painter->parameters(), about.at("evaluations").get<std::int64_t>()};
}

}  // namespace atelier::cli
