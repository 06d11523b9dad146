#include "atelier/models/diffusers_directory.h"

#include <algorithm>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/diffusion/ddpm_schedule.h"
#include "atelier/graph/builder.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;

/// The parts' folders, with the class names supported in each.
const std::map<std::string, std::vector<std::string>>& parts() {
    static const std::map<std::string, std::vector<std::string>> all{
        {"unet", {"UNet2DConditionModel"}},
        {"vae", {"AutoencoderKL"}},
        {"text_encoder", {"CLIPTextModel"}},
        {"tokenizer", {"CLIPTokenizer", "CLIPTokenizerFast"}},
        {"scheduler",
         {"DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler",
          "LMSDiscreteScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
          "UniPCMultistepScheduler"}}};
    return all;
}

void check_part(const core::JsonObject& index, const std::string& part,
                const std::vector<std::string>& classes) {
    if (!index.has(part) || index.json().at(part).is_null())
        core::fail("{}: names no \"{}\"", index.where(), part);
    const auto names = index.texts(part);
    const std::string name = names.size() == 2 ? names[1] : "";
    if (std::ranges::find(classes, name) == classes.end()) {
        core::fail("{}: \"{}\" is of the class \"{}\", which is not supported; expected {}",
                   index.where(), part, name.substr(0, 100), classes.front());
    }
}

template <class Network>
Network read_config(const fs::path& file) {
    const nlohmann::json config = core::read_json(file);
    return Network::of(core::JsonObject(config, file.string()));
}

template <class Network>
DiffusersWeights checked_weights(const fs::path& folder, const Network& network) {
    DiffusersWeights weights(folder);
    weights.check_against(parameters_of(network));
    return weights;
}

}  // namespace

void copy_texts(const fs::path& from, const fs::path& to) {
    if (!fs::is_directory(from)) return;
    constexpr std::size_t largest = 64 << 20;
    for (const auto& entry : fs::directory_iterator(from)) {
        const std::string ending = entry.path().extension().string();
        const bool index =
            entry.path().filename().string().find(".safetensors.index") != std::string::npos;
        if (entry.is_regular_file() && !index && (ending == ".json" || ending == ".txt"))
            core::write_text(to / entry.path().filename(), core::read_text(entry.path(), largest));
    }
}

void copy_weights(const DiffusersWeights& weights, const fs::path& to) {
    std::vector<core::TensorBytes> tensors;
    for (const auto& [name, location] : weights.locations()) {
        const core::TensorEntry& entry = location.file->entry(location.name);
        tensors.push_back(
            {location.name, entry.dtype, entry.shape, location.file->bytes(location.name)});
    }
    core::write_safetensors(to, std::move(tensors), {{"format", "pt"}});
}

bool is_diffusers_directory(const fs::path& path) { return fs::exists(path / "model_index.json"); }

std::vector<graph::ParameterSpec> parameters_of(const networks::SdUnet& network) {
    const std::int64_t size = network.factor();
    graph::Builder ops;
    network.forward(ops, ops.input({1, network.in_channels, size, size}), ops.input({1}),
                    ops.input({1, 1, network.context_width}));
    return std::move(ops).finished({}).parameters;
}

std::vector<graph::ParameterSpec> parameters_of(const networks::SdVae& network) {
    const std::int64_t size = network.factor();
    graph::Builder ops;
    network.encode(ops, ops.input({1, network.image_channels, size, size}));
    network.decode(ops, ops.input({1, network.latent_channels, 1, 1}));
    return std::move(ops).finished({}).parameters;
}

std::vector<graph::ParameterSpec> parameters_of(const networks::ClipText& network) {
    graph::Builder ops;
    network.forward(ops, ops.input({1, 1}));
    return std::move(ops).finished({}).parameters;
}

DiffusersDirectory::DiffusersDirectory(fs::path path) : path_(std::move(path)) {
    const fs::path file = path_ / "model_index.json";
    index_ = core::read_json(file);
    const core::JsonObject index(index_, file.string());
    const std::string name = index.text("_class_name");
    if (name != "StableDiffusionPipeline")
        core::fail(
            "{}: is a \"{}\"; supported is StableDiffusionPipeline (Stable Diffusion 1 and 2)",
            file.string(), name.substr(0, 100));
    for (const auto& [part, classes] : parts()) check_part(index, part, classes);
}

networks::SdUnet DiffusersDirectory::unet() const {
    return read_config<networks::SdUnet>(path_ / "unet" / "config.json");
}

networks::SdVae read_vae_config(const fs::path& folder) {
    return read_config<networks::SdVae>(folder / "config.json");
}

DiffusersWeights vae_weights_in(const fs::path& folder, const networks::SdVae& network) {
    return checked_weights(folder, network);
}

networks::SdVae DiffusersDirectory::vae() const { return read_vae_config(path_ / "vae"); }

networks::ClipText DiffusersDirectory::text() const {
    return read_config<networks::ClipText>(path_ / "text_encoder" / "config.json");
}

nlohmann::json DiffusersDirectory::scheduler_config() const {
    return core::read_json(scheduler_file());
}

DiffusersWeights DiffusersDirectory::unet_weights() const {
    return checked_weights(path_ / "unet", unet());
}

DiffusersWeights DiffusersDirectory::vae_weights() const {
    return checked_weights(path_ / "vae", vae());
}

DiffusersWeights DiffusersDirectory::text_weights() const {
    return checked_weights(path_ / "text_encoder", text());
}

nlohmann::json DiffusersDirectory::about() const {
    const networks::SdUnet unet = this->unet();
    const networks::SdVae vae = this->vae();
    const networks::ClipText text = this->text();
    if (text.width != unet.context_width)
        core::fail("{}: \"cross_attention_dim\" is {}, the text encoder's \"hidden_size\" {}",
                   (path_ / "unet/config.json").string(), unet.context_width, text.width);
    const auto of = [](const DiffusersWeights& weights) {
        return nlohmann::json{{"parameters", weights.count()},
                              {"stored_as", weights.types()},
                              {"files", weights.files().size()}};
    };
    const nlohmann::json scheduler = scheduler_config();
    diffusion::DdpmSchedule::of(core::JsonObject(scheduler, scheduler_file().string()));
    return {{"kind", "diffusers directory"},
            {"pipeline", index_.at("_class_name")},
            {"image_size", unet.sample_size * vae.factor()},
            {"latent_shape", {unet.in_channels, unet.sample_size, unet.sample_size}},
            {"prediction_type", scheduler.value("prediction_type", "epsilon")},
            {"unet", of(unet_weights())},
            {"vae", of(vae_weights())},
            {"text_encoder", of(text_weights())}};
}

void write_diffusers_directory(const DiffusersDirectory& from, const fs::path& to) {
    const DiffusersWeights unet = from.unet_weights(), vae = from.vae_weights(),
                           text = from.text_weights();
    core::create_directory_atomically(to, [&](const fs::path& folder) {
        copy_texts(from.path(), folder);
        for (const char* part :
             {"unet", "vae", "text_encoder", "tokenizer", "scheduler", "feature_extractor"})
            copy_texts(from.path() / part, folder / part);
        nlohmann::json index = core::read_json(folder / "model_index.json");
        index["safety_checker"] = {nullptr, nullptr};  // not one of the networks, and not copied
        if (!fs::is_directory(folder / "feature_extractor"))
            index["feature_extractor"] = {nullptr, nullptr};
        index["requires_safety_checker"] = false;
        core::write_json(folder / "model_index.json", index);
        copy_weights(unet, folder / "unet" / "diffusion_pytorch_model.safetensors");
        copy_weights(vae, folder / "vae" / "diffusion_pytorch_model.safetensors");
        copy_weights(text, folder / "text_encoder" / "model.safetensors");
    });
}

}  // namespace atelier::models
