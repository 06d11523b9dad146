#include "atelier/models/model_directory.h"

#include <mutex>

#include "atelier/backends/torch/low_rank.h"
#include "atelier/backends/torch/quantised.h"
#include "atelier/core/error.h"
#include "atelier/models/opened_model.h"

namespace atelier::models {

namespace {

constexpr const char* weights_file = "model.safetensors";

/// The weights of a directory, in memory once for all models that currently share them.
std::shared_ptr<const backends::Parameters> shared_base(const std::filesystem::path& directory,
                                                        at::Device device) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<const backends::Parameters>> cache;
    const std::lock_guard lock(mutex);
    const auto file = std::filesystem::weakly_canonical(directory) / weights_file;
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

Model init_model(ModelCard card, std::uint64_t seed) {
    Model model{std::move(card), {}, nullptr};
    model.parameters = backends::initialise(model.specs(), seed);
    return model;
}

Model init_model(const nlohmann::json& config, std::uint64_t seed) {
    return init_model(card_of(config, "model"), seed);
}

Model model_of(const nlohmann::json& config, const backends::Parameters& tensors,
               const std::string& where) {
    Model model{card_of(config, where), {}, nullptr};
    model.parameters = without_filters(tensors);
    backends::check_against(model.parameters, networks::trace(model.network).parameters, where);
    return model;
}

Model read_model_config(const std::filesystem::path& directory) {
    return {read_card(directory), {}, nullptr};
}

Model open_model(const std::filesystem::path& directory) {
    return {read_card(directory),
            {},
            std::make_shared<const core::SafetensorsFile>(directory / weights_file)};
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
        model.parameters.set_base(shared_base(path.parent_path() / model.lora->base, device));
        check_base(model, path.string());
        if (weights != Weights::shared) {
            model.parameters = backends::merged(model.parameters);
            model.lora.reset();
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
    write_card(directory, model, files);
}

bool is_model_directory(const std::filesystem::path& path) {
    return std::filesystem::is_regular_file(path / "config.json") &&
           !std::filesystem::exists(path / "ensemble.json");
}

}  // namespace atelier::models
