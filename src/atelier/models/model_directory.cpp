#include "atelier/models/model_directory.h"

#include <mutex>

#include "atelier/backends/torch/low_rank.h"
#include "atelier/backends/torch/quantised.h"
#include "atelier/core/error.h"
#include "atelier/models/checksums.h"
#include "atelier/models/identify_path.h"
#include "atelier/models/opened_model.h"

namespace atelier::models {

namespace {

/// The "data" of config.json. Configs written by other programs may lack it; it defaults to an
/// image of the network's shape, or points.
data::SampleSpec spec_of(const core::JsonObject& config, const networks::Network& network) {
    if (config.has("data")) {
        data::SampleSpec spec = data::sample_spec_from_json(config.object("data"));
        if (spec.shape != network.data_shape) {
            core::fail("{}: data.shape is {}, the network's is {}", config.where(),
                       core::to_string(spec.shape), core::to_string(network.data_shape));
        }
        return spec;
    }
    data::SampleSpec spec;
    spec.shape = network.data_shape;
    if (spec.shape.size() == 1) {
        spec.kind = data::SampleSpec::Kind::points;
        spec.offset.assign(static_cast<std::size_t>(spec.shape[0]), 0.0);
    }
    return spec;
}

Model described(const nlohmann::json& config, const std::string& where) {
    const core::JsonObject json(config, where);
    Model model;
    model.config = config;
    model.config.erase(checksums_key);  // they apply to the files beside it only
    model.network = networks::make_network(json);
    model.noise = diffusion::NoiseSchedule::read(json);
    model.spec = spec_of(json, model.network);
    return model;
}

constexpr const char *lora = "lora", *weights_file = "model.safetensors";

std::string base_of(const nlohmann::json& config, const std::string& where) {
    const std::string base = core::JsonObject(config, where).object(lora).text("base");
    if (base.empty() || std::filesystem::path(base).is_absolute())
        core::fail("{}: lora.base must be a path from the model's folder to its base model", where);
    return base;
}

/// The weights of a directory, in memory once for all models that currently share them.
std::shared_ptr<const backends::Parameters> shared_base(const std::filesystem::path& directory,
                                                        at::Device device) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<const backends::Parameters>> cache;
    const std::lock_guard lock(mutex);
    const auto file = std::filesystem::weakly_canonical(directory) / "model.safetensors";
    std::error_code missing;
    const auto written = std::filesystem::last_write_time(file, missing).time_since_epoch().count();
    auto& entry = cache[fmt::format("{} {} {}", file.string(), written, device.str())];
    auto base = entry.lock();
    if (!base) {
        base =
            std::make_shared<const backends::Parameters>(read_model(directory, device).parameters);
        entry = base;
    }
    return base;
}

/// Checks that the base has a weight of the right shape for every delta.
void check_base(const Model& model, const std::string& where) {
    for (const graph::ParameterSpec& spec : networks::trace(model.network).parameters) {
        const auto& base = model.parameters.base();
        if (!base->contains(spec.name) ||
            base->at(spec.name).sizes() != at::IntArrayRef(spec.shape)) {
            core::fail("{}: its base has no tensor \"{}\" of {}; it is another network's", where,
                       spec.name, core::to_string(spec.shape));
        }
    }
}

/// Drops the fixed filters of resampling layers, which EDM's checkpoints contain; here they are
/// part of the ops.
backends::Parameters without_filters(const backends::Parameters& all) {
    backends::Parameters kept;
    for (const auto& [name, tensor] : all.tensors()) {
        if (!name.ends_with(".resample_filter")) kept.set(name, tensor);
    }
    return kept;
}

}  // namespace

std::int64_t Model::low_rank() const {
    if (!config.contains(lora)) return 0;
    return core::JsonObject(config, "config.json").object(lora).integer("rank", 1, 1 << 16);
}

std::vector<graph::ParameterSpec> Model::specs() const {
    const auto all = networks::trace(network).parameters;
    return low_rank() > 0 ? backends::low_rank_specs(all, low_rank()) : all;
}

std::string Model::hash() const {
    std::string hash = backends::hash_of(parameters);
    release_pages();
    return hash;
}

void Model::release_pages() const {
    if (mapped) mapped->release_pages();
}

std::int64_t Model::parameter_count() const {
    return backends::without_quantisation(parameters, "model").count();
}

diffusion::EdmDenoiser Model::denoiser(const backends::Compute& compute) const {
    return {network, parameters, noise, compute};
}

Model init_model(const nlohmann::json& config, std::uint64_t seed) {
    Model model = described(config, "model");
    model.parameters = backends::initialise(model.specs(), seed);
    return model;
}

Model model_of(const nlohmann::json& config, const backends::Parameters& tensors,
               const std::string& where) {
    Model model = described(config, where);
    model.parameters = without_filters(tensors);
    backends::check_against(model.parameters, networks::trace(model.network).parameters, where);
    return model;
}

Model read_model_config(const std::filesystem::path& directory) {
    const auto path = directory / "config.json";
    if (!std::filesystem::exists(path)) reject_as_model(directory);
    nlohmann::json config = core::read_json(path);
    if (config.is_object() && !config.contains("architecture") &&
        (config.contains("_class_name") || config.contains("architectures")))
        reject_as_model(directory);
    return described(config, path.string());
}

Model open_model(const std::filesystem::path& directory) {
    Model model = read_model_config(directory);
    model.mapped = std::make_shared<const core::SafetensorsFile>(directory / "model.safetensors");
    return model;
}

Model read_weights(Model model, at::Device device, Weights weights) {
    const auto file = model.mapped;
    const auto& path = file->path();
    const bool mapped = weights == Weights::mapped && device == at::kCPU;
    if (!mapped) model.mapped = nullptr;
    model.parameters =
        without_filters(mapped ? backends::map_parameters(file) : backends::read_parameters(*file));
    backends::check_against(backends::without_quantisation(model.parameters, path.string()),
                            model.specs(), path.string());
    for (const auto& [name, tensor] : model.parameters.tensors()) {
        if (tensor.scalar_type() == at::kChar && !model.quantised()) {
            core::fail(
                "{}: tensor \"{}\" is int8, and config.json says nothing of \"quantisation\"",
                path.string(), name);
        }
        if (!tensor.is_floating_point() && tensor.scalar_type() != at::kChar)
            core::fail("{}: tensor \"{}\" holds integers; weights are floating point",
                       path.string(), name);
    }
    if (!model.parameters.all_finite())
        core::fail("{}: holds values that are not finite; the file is damaged", path.string());
    if (!mapped) model.parameters = backends::dequantised(model.parameters);
    if (device != at::kCPU) model.parameters = model.parameters.to(device);
    if (model.low_rank() > 0) {
        model.parameters.set_base(
            shared_base(path.parent_path() / base_of(model.config, path.string()), device));
        check_base(model, path.string());
        if (weights != Weights::shared) {
            model.parameters = backends::merged(model.parameters);
            model.config.erase(lora);
        }
    }
    return model;
}

Model read_model(const std::filesystem::path& directory, at::Device device, Weights weights) {
    return read_weights(open_model(directory), device, weights);
}

void write_model(const std::filesystem::path& directory, const Model& model,
                 const MoreWeights& more) {
    std::vector<std::string> files{weights_file};
    backends::write_parameters(directory / weights_file, model.parameters);
    for (const auto& [name, parameters] : more) {
        files.push_back("model-" + name + ".safetensors");
        backends::write_parameters(directory / files.back(), parameters);
    }
    nlohmann::json config = model.config;
    config[checksums_key] = checksums_of(directory, files);
    core::write_json(directory / "config.json", config);
}

bool is_model_directory(const std::filesystem::path& path) {
    return std::filesystem::is_regular_file(path / "config.json") &&
           !std::filesystem::exists(path / "ensemble.json");
}

}  // namespace atelier::models
