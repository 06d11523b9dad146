#include "atelier/models/diffusers_directory.h"

#include <algorithm>

#include "atelier/backends/torch/low_rank.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/diffusion/ddpm_schedule.h"
#include "atelier/diffusion/flow_schedule.h"
#include "atelier/graph/builder.h"
#include "atelier/networks/diffusers_config.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;

/// A part's folder, and the class names supported in it.
struct PartClasses {
    std::string part;
    std::vector<std::string> classes;
};

struct Pipeline {
    DiffusersFamily family;
    std::vector<PartClasses> parts;
};

/// By their class names.
const std::map<std::string, Pipeline>& pipelines() {
    const PartClasses vae{"vae", {"AutoencoderKL"}},
        tokenizer{"tokenizer", {"CLIPTokenizer", "CLIPTokenizerFast"}},
        second_tokenizer{"tokenizer_2", tokenizer.classes}, text{"text_encoder", {"CLIPTextModel"}},
        projected{"text_encoder", {"CLIPTextModelWithProjection"}},
        second{"text_encoder_2", projected.classes}, unet{"unet", {"UNet2DConditionModel"}},
        scheduler{"scheduler",
                  {"DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler",
                   "LMSDiscreteScheduler", "EulerDiscreteScheduler",
                   "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler"}};
    static const std::map<std::string, Pipeline> all{
        {"StableDiffusionPipeline",
         {DiffusersFamily::stable_diffusion, {unet, vae, text, tokenizer, scheduler}}},
        {"StableDiffusionXLPipeline",
         {DiffusersFamily::sdxl,
          {unet, vae, text, tokenizer, second, second_tokenizer, scheduler}}},
        {"StableDiffusion3Pipeline",
         {DiffusersFamily::sd3,
          {{"transformer", {"SD3Transformer2DModel"}},
           vae,
           projected,
           tokenizer,
           second,
           second_tokenizer,
           {"scheduler", {"FlowMatchEulerDiscreteScheduler"}}}}},
        {"DiTPipeline",
         {DiffusersFamily::dit,
          {{"transformer", {"DiTTransformer2DModel", "Transformer2DModel"}}, vae, scheduler}}}};
    return all;
}

/// The class of a part that model_index.json names; empty where there is none.
std::string named_class(const core::JsonObject& index, const std::string& part) {
    const nlohmann::json& json = index.json();
    if (!json.contains(part) || !json.at(part).is_array() || json.at(part).size() != 2 ||
        !json.at(part)[1].is_string())
        return "";
    return json.at(part)[1].get<std::string>();
}

void check_part(const core::JsonObject& index, const PartClasses& part) {
    if (!index.has(part.part) || index.json().at(part.part).is_null())
        core::fail("{}: names no \"{}\"", index.where(), part.part);
    const std::string name = named_class(index, part.part);
    if (std::ranges::find(part.classes, name) == part.classes.end()) {
        core::fail("{}: \"{}\" is of the class \"{}\", which is not supported; expected {}",
                   index.where(), part.part, name.substr(0, 100), part.classes.front());
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
    return networks::parameters_of(network.functions());
}

std::vector<graph::ParameterSpec> parameters_of(const networks::SdVae& network) {
    return networks::parameters_of(network.functions());
}

std::vector<graph::ParameterSpec> parameters_of(const networks::ClipText& network) {
    graph::Builder ops;
    network.states(ops, ops.input({1, 1}));
    return std::move(ops).finished({}).parameters;
}

DiffusersPart::DiffusersPart(fs::path folder, const std::vector<std::string>& classes)
    : folder_(std::move(folder)) {
    const fs::path file = folder_ / "config.json";
    const nlohmann::json json = core::read_json(file);
    const core::JsonObject config(json, file.string());
    const std::string otherwise = classes.empty() ? "" : classes.front();
    class_name_ =
        otherwise.empty() ? config.text("_class_name") : config.text_or("_class_name", otherwise);
    if (!classes.empty() && std::ranges::find(classes, class_name_) == classes.end())
        core::fail("{}: is of the class \"{}\"; only {} is supported here", file.string(),
                   class_name_.substr(0, 100), otherwise);
    functions_ = networks::read_diffusers_network(config, otherwise);
}

DiffusersWeights DiffusersPart::weights() const {
    DiffusersWeights weights(folder_);
    weights.check_against(networks::parameters_of(functions_));
    return weights;
}

nlohmann::json DiffusersPart::about() const {
    const DiffusersWeights read = weights();
    nlohmann::json parts = nlohmann::json::object();
    for (const auto& [name, function] : functions_) {
        std::vector<std::string> inputs;
        for (const auto& port : function.inputs) inputs.push_back(port.name);
        parts[name] = {{"in", inputs}, {"out", function.outputs}};
    }
    return {{"kind", functions_.contains("decode") ? "autoencoder" : "network"},
            {"class", class_name_},
            {"functions", parts},
            {"parameters", read.count()},
            {"stored_as", read.types()},
            {"files", read.files().size()}};
}

bool is_diffusers_part(const fs::path& folder) {
    try {
        const nlohmann::json config = core::read_json(folder / "config.json");
        const auto known = networks::diffusers_networks();
        return config.is_object() && config.contains("_class_name") &&
               config.at("_class_name").is_string() &&
               std::ranges::find(known, config.at("_class_name").get<std::string>()) != known.end();
    } catch (const core::Error&) {
        return false;
    }
}

DiffusersDirectory::DiffusersDirectory(fs::path path) : path_(std::move(path)) {
    const fs::path file = path_ / "model_index.json";
    index_ = core::read_json(file);
    const core::JsonObject index(index_, file.string());
    const std::string name = index.text("_class_name");
    const auto found = pipelines().find(name);
    if (found == pipelines().end()) {
        core::fail(
            "{}: is a \"{}\"; supported are StableDiffusionPipeline (Stable Diffusion 1 and 2), "
            "StableDiffusionXLPipeline, StableDiffusion3Pipeline and DiTPipeline",
            file.string(), name.substr(0, 100));
    }
    family_ = found->second.family;
    for (const PartClasses& part : found->second.parts) check_part(index, part);
}

std::string DiffusersDirectory::denoiser_part() const {
    const bool unet =
        family_ == DiffusersFamily::stable_diffusion || family_ == DiffusersFamily::sdxl;
    return unet ? "unet" : "transformer";
}

DiffusersPart DiffusersDirectory::denoiser() const {
    return DiffusersPart(path_ / denoiser_part(), pipelines().at(pipeline()).parts.front().classes);
}

std::vector<std::int64_t> DiffusersDirectory::latent_shape() const {
    const fs::path file = path_ / denoiser_part() / "config.json";
    const nlohmann::json json = core::read_json(file);
    const core::JsonObject config(json, file.string());
    const networks::NamedFunction denoise = denoiser().functions().at("denoise");
    const std::int64_t usual = family_ == DiffusersFamily::dit   ? 32
                               : family_ == DiffusersFamily::sd3 ? 128
                                                                 : 64;
    const std::int64_t size = config.integer_or("sample_size", usual, 1, 4096);
    if (size % denoise.multiple != 0)
        core::fail("{}: \"sample_size\" must be a multiple of {}", file.string(), denoise.multiple);
    return {denoise.inputs.front().shape.front(), size, size};
}

std::vector<std::string> DiffusersDirectory::text_parts() const {
    switch (family_) {
        case DiffusersFamily::stable_diffusion:
            return {"text_encoder"};
        case DiffusersFamily::sdxl:
        case DiffusersFamily::sd3:
            return {"text_encoder", "text_encoder_2"};
        case DiffusersFamily::dit:
            break;
    }
    return {};
}

std::vector<fs::path> DiffusersDirectory::tokenizers() const {
    std::vector<fs::path> all;
    for (const std::string& part : text_parts())
        all.push_back(path_ / (part == "text_encoder" ? "tokenizer" : "tokenizer_2"));
    return all;
}

networks::SdUnet DiffusersDirectory::unet() const {
    if (family_ != DiffusersFamily::stable_diffusion) {
        throw core::UsageError(
            fmt::format("{}: is a {}; this works with Stable Diffusion 1 and 2 only",
                        path_.string(), pipeline()));
    }
    return read_config<networks::SdUnet>(path_ / "unet" / "config.json");
}

networks::SdVae read_vae_config(const fs::path& folder) {
    return read_config<networks::SdVae>(folder / "config.json");
}

DiffusersWeights vae_weights_in(const fs::path& folder, const networks::SdVae& network) {
    return checked_weights(folder, network);
}

networks::SdVae DiffusersDirectory::vae() const { return read_vae_config(path_ / "vae"); }

networks::ClipText DiffusersDirectory::text(const std::string& part) const {
    const fs::path file = path_ / part / "config.json";
    const nlohmann::json json = core::read_json(file);
    const core::JsonObject config(json, file.string());
    networks::ClipText text = networks::ClipText::of(config);
    const bool projected = named_class(core::JsonObject(index_, path_.string()), part) ==
                           "CLIPTextModelWithProjection";
    if (!projected) text.projection = 0;
    else if (text.projection == 0) text.projection = config.integer("projection_dim", 1, 16384);
    return text;
}

nlohmann::json DiffusersDirectory::scheduler_config() const {
    return core::read_json(scheduler_file());
}

std::string DiffusersDirectory::scheduler_class() const {
    return named_class(core::JsonObject(index_, path_.string()), "scheduler");
}

DiffusersWeights DiffusersDirectory::vae_weights() const {
    return checked_weights(path_ / "vae", vae());
}

DiffusersWeights DiffusersDirectory::text_weights(const std::string& part) const {
    return checked_weights(path_ / part, text(part));
}

std::map<std::string, DiffusersWeights> DiffusersDirectory::all_weights() const {
    std::map<std::string, DiffusersWeights> all;
    all.emplace(denoiser_part(), denoiser_weights());
    all.emplace("vae", vae_weights());
    for (const std::string& part : text_parts()) all.emplace(part, text_weights(part));
    return all;
}

void DiffusersDirectory::require_readable_text() const {
    const std::string third =
        named_class(core::JsonObject(index_, path_.string()), "text_encoder_3");
    if (third.empty()) return;
    core::fail(
        "{}: \"text_encoder_3\" is a {}, which is not read; to draw without it, as diffusers does "
        "with text_encoder_3=None, write [null, null] there",
        (path_ / "model_index.json").string(), third.substr(0, 100));
}

bool DiffusersDirectory::zeros_for_no_prompt() const {
    return family_ == DiffusersFamily::sdxl &&
           networks::flag_or(core::JsonObject(index_, (path_ / "model_index.json").string()),
                             "force_zeros_for_empty_prompt", true);
}

std::int64_t DiffusersDirectory::classes() const {
    const networks::NamedFunction denoise = denoiser().functions().at("denoise");
    for (const auto& port : denoise.inputs) {
        if (port.ids > 0) return port.ids - 1;  // the last one is none
    }
    return 0;
}

std::vector<std::string> DiffusersDirectory::class_names() const {
    const core::JsonObject index(index_, (path_ / "model_index.json").string());
    if (family_ != DiffusersFamily::dit || !networks::is_given(index, "id2label")) return {};
    const core::JsonObject labels = index.object("id2label");
    std::vector<std::string> names;
    for (std::int64_t i = 0; i < classes(); ++i) {
        if (!labels.has(std::to_string(i))) return {};
        const std::string name = labels.text(std::to_string(i));
        names.push_back(name.substr(0, name.find(',')));  // the first of several
    }
    return names;
}

void DiffusersDirectory::check_text_width() const {
    const std::vector<networks::NamedFunction::Port> inputs =
        denoiser().functions().at("denoise").inputs;
    const auto hidden = std::ranges::find(inputs, "hidden", &networks::NamedFunction::Port::name);
    if (hidden == inputs.end()) return;
    std::int64_t width = 0;
    for (const std::string& part : text_parts()) width += text(part).width;
    const std::int64_t read = hidden->shape.back();
    if (family_ == DiffusersFamily::sd3 ? width > read : width != read)  // SD3's are padded
        core::fail("{}: reads text states of width {}, the text encoders give {} (\"hidden_size\")",
                   (path_ / denoiser_part() / "config.json").string(), read, width);
}

nlohmann::json DiffusersDirectory::about() const {
    const std::vector<std::int64_t> latent = latent_shape();
    const networks::SdVae vae = this->vae();
    const auto file = (path_ / denoiser_part() / "config.json").string();
    if (vae.latent_channels != latent[0])
        core::fail("{}: \"in_channels\" is {}, the autoencoder's \"latent_channels\" {}", file,
                   latent[0], vae.latent_channels);
    check_text_width();
    const nlohmann::json scheduler = scheduler_config();
    const core::JsonObject config(scheduler, scheduler_file().string());
    nlohmann::json about{{"kind", "diffusers directory"},
                         {"pipeline", pipeline()},
                         {"image_size", latent[1] * vae.factor()},
                         {"latent_shape", latent},
                         {"scheduler", scheduler_class()}};
    if (family_ == DiffusersFamily::sd3) {
        diffusion::FlowSchedule::of(config);
        about["prediction_type"] = "velocity";
    } else {
        diffusion::DdpmSchedule::of(config);
        about["prediction_type"] = scheduler.value("prediction_type", "epsilon");
    }
    if (family_ == DiffusersFamily::dit) {
        about["classes"] = classes();
        if (const auto names = class_names(); !names.empty()) about["class_names"] = names;
    }
    for (const auto& [part, weights] : all_weights()) {
        about[part] = {{"parameters", weights.count()},
                       {"stored_as", weights.types()},
                       {"files", weights.files().size()}};
    }
    return about;
}

namespace {

/// Writes `weights` with `deltas` merged, tensors in their stored types and under their stored
/// names.
void write_merged(const DiffusersWeights& weights, const backends::Parameters& deltas,
                  const fs::path& to) {
    backends::Parameters changed = deltas;
    changed.set_base(std::make_shared<const backends::Parameters>(weights.map()));
    const backends::Parameters whole = backends::merged(changed);
    backends::Parameters named;
    for (const auto& [name, location] : weights.locations()) {
        const auto type = backends::map_tensor(location.file, location.name).scalar_type();
        named.set(location.name, whole.at(name).to(type));
    }
    backends::write_parameters(to, named, {{"format", "pt"}});
}

}  // namespace

void write_diffusers_directory(const DiffusersDirectory& from, const fs::path& to,
                               const PartDeltas& deltas) {
    const auto all = from.all_weights();
    core::create_directory_atomically(to, [&](const fs::path& folder) {
        copy_texts(from.path(), folder);
        for (const char* part : {"tokenizer", "tokenizer_2", "scheduler", "feature_extractor"})
            copy_texts(from.path() / part, folder / part);
        nlohmann::json index = core::read_json(folder / "model_index.json");
        // Not among the networks, and not copied.
        for (const char* part :
             {"safety_checker", "image_encoder", "text_encoder_3", "tokenizer_3"}) {
            if (index.contains(part)) index[part] = {nullptr, nullptr};
        }
        if (from.family() == DiffusersFamily::stable_diffusion) {
            index["safety_checker"] = {nullptr, nullptr};
            index["requires_safety_checker"] = false;
        }
        if (index.contains("feature_extractor") && !fs::is_directory(folder / "feature_extractor"))
            index["feature_extractor"] = {nullptr, nullptr};
        core::write_json(folder / "model_index.json", index);
        for (const auto& [part, weights] : all) {
            copy_texts(from.path() / part, folder / part);
            const bool text = part.starts_with("text_encoder");
            const fs::path file =
                folder / part /
                (text ? "model.safetensors" : "diffusion_pytorch_model.safetensors");
            const auto changes = deltas.find(part);
            if (changes == deltas.end() || changes->second.empty()) copy_weights(weights, file);
            else write_merged(weights, changes->second, file);
        }
    });
}

}  // namespace atelier::models
