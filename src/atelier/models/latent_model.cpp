#include "atelier/models/latent_model.h"

#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/models/checksums.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;

constexpr const char* part_folders[] = {"text_encoder", "tokenizer", "vae", "scheduler",
                                        "feature_extractor"};

/// The folder of a model's parts: its own, or that of its ensemble.
fs::path parts_folder(const fs::path& model) {
    const fs::path absolute = fs::absolute(model).lexically_normal();
    const fs::path itself = absolute.has_filename() ? absolute : absolute.parent_path();
    for (const fs::path& folder : {itself, itself.parent_path().parent_path()}) {
        if (has_autoencoder(folder)) return folder;
    }
    throw core::UsageError(
        fmt::format("{}: no autoencoder lies beside it or in an ensemble around it; name a student "
                    "inside its ensemble",
                    model.string()));
}

nlohmann::json model_index(const fs::path& parts) {
    const fs::path scheduler = parts / "scheduler" / "scheduler_config.json";
    const nlohmann::json none{nullptr, nullptr};
    return {{"_class_name", "StableDiffusionPipeline"},
            {"scheduler",
             {"diffusers", core::read_json(scheduler).value("_class_name", "DDIMScheduler")}},
            {"text_encoder", {"transformers", "CLIPTextModel"}},
            {"tokenizer", {"transformers", "CLIPTokenizer"}},
            {"unet", {"diffusers", "UNet2DConditionModel"}},
            {"vae", {"diffusers", "AutoencoderKL"}},
            {"safety_checker", none},
            {"feature_extractor", none},
            {"requires_safety_checker", false}};
}

}  // namespace

bool has_autoencoder(const fs::path& directory) {
    return fs::is_regular_file(directory / "vae" / "config.json");
}

ModelCard card_of(const DiffusersDirectory& from) {
    const networks::SdUnet unet = from.unet();
    const nlohmann::json config{
        {"architecture", "sd_unet"},
        {"unet", core::read_json(from.path() / "unet" / "config.json")},
        {"tokens", conditions::ClipTokenizer(from.tokenizer()).length()},
        {"preconditioning", "ddpm"},
        {"scheduler", from.scheduler_config()},
        {"condition", "text"},
        {"data",
         {{"kind", "latent"}, {"shape", {unet.in_channels, unet.sample_size, unet.sample_size}}}}};
    return card_of(config, from.scheduler_file().string());
}

void write_latent_model(const DiffusersDirectory& from, const fs::path& to,
                        std::optional<double> guidance) {
    ModelCard card = card_of(from);  // an invalid model is reported before anything is written
    card.guidance = guidance;
    const DiffusersWeights unet = from.unet_weights();
    copy_weights(unet, to / "model.safetensors");
    copy_weights(from.vae_weights(), to / "vae" / "diffusion_pytorch_model.safetensors");
    copy_weights(from.text_weights(), to / "text_encoder" / "model.safetensors");
    for (const char* part : part_folders) copy_texts(from.path() / part, to / part);
    write_card(to, card, weights_below(to));
}

void copy_parts(const fs::path& from, const fs::path& to) {
    for (const char* part : part_folders) {
        if (fs::is_directory(from / part))
            fs::copy(from / part, to / part,
                     fs::copy_options::recursive | fs::copy_options::skip_existing);
    }
}

void write_as_diffusers(const fs::path& model, const fs::path& to) {
    const Model read =
        read_model(model, at::kCPU, Weights::mapped);  // deltas merged with their base
    if (read.network.architecture != "sd_unet")
        throw core::UsageError(model.string() +
                               ": is no U-Net of Stable Diffusion; --to diffusers is for those");
    const fs::path parts = parts_folder(model);
    core::create_directory_atomically(to, [&](const fs::path& folder) {
        copy_parts(parts, folder);
        backends::write_parameters(folder / "unet" / "diffusion_pytorch_model.safetensors",
                                   read.parameters, {{"format", "pt"}});
        core::write_json(folder / "unet" / "config.json", read.config.at("unet"));
        core::write_json(folder / "model_index.json", model_index(parts));
    });
}

}  // namespace atelier::models
