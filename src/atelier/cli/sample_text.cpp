#include "atelier/cli/sample_text.h"

#include <iostream>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/image_file.h"
#include "atelier/core/npz.h"
#include "atelier/core/progress.h"
#include "atelier/inference/text_to_image.h"
#include "atelier/ops/deterministic.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

/// [1,3,H,W] in +-1 -> pixels [H,W,3] uint8.
Tensor pixels_of(const Tensor& image) { return ((image[0] / 2 + 0.5).clamp(0, 1) * 255).round().to(at::kByte).permute({1, 2, 0}).contiguous(); }

void write(const TextRequest& request, const std::vector<Tensor>& images) {
    const std::string ending = fs::path(request.out).extension().string();
    if (ending == ".npz") {
        const Tensor all = at::stack(images).contiguous();
        return core::write_npz(request.out, {{"arr_0", core::DType::U8, all.sizes().vec(), {static_cast<const std::byte*>(all.const_data_ptr()), all.nbytes()}}});
    }
    std::vector<core::Image> pictures;
    for (const Tensor& image : images) pictures.push_back(models::image_of(image));
    if (ending == ".png") return core::write_png(request.out, pictures.size() == 1 ? pictures[0] : core::grid(pictures, static_cast<int>(std::min<std::size_t>(4, pictures.size()))));
    core::create_directory_atomically(request.out, [&](const fs::path& folder) {
        for (std::size_t i = 0; i < pictures.size(); ++i) core::write_png(folder / fmt::format("{:06}.png", i), pictures[i]);
    });
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
    core::Progress progress("sampling", request.count * how.steps, "evaluations");
    std::vector<Tensor> images;
    for (std::int64_t i = 0; i < request.count; ++i) {
        const auto tell = [&](std::int64_t done) { progress.update(i * how.steps + done); };
        images.push_back(pixels_of(draw(model, *options.prompt, how, static_cast<std::uint64_t>(request.seed), i, tell)));
    }
    write(request, images);
    if (request.json) {
        std::cout << nlohmann::json{{"out", request.out}, {"count", request.count}, {"seed", request.seed}, {"evaluations", how.steps}}.dump() << std::endl;
    }
}

}  // namespace atelier::cli
