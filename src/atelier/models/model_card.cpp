#include "atelier/models/model_card.h"

#include <limits>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/safetensors.h"
#include "atelier/models/checksums.h"
#include "atelier/models/identify_path.h"

namespace atelier::models {

namespace {

using nlohmann::json;

constexpr auto any_integer = std::numeric_limits<std::int64_t>::max();
constexpr double any_number = std::numeric_limits<double>::max();

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

ConditionKind condition_of(const core::JsonObject& config, const networks::Network& network) {
    if (config.text_or("condition", "") == "text") return ConditionKind::text;
    return network.label_dim > 0 ? ConditionKind::classes : ConditionKind::none;
}

LowRank low_rank_of(const core::JsonObject& config) {
    LowRank lora{config.integer("rank", 1, 1 << 16), config.text("base")};
    if (lora.base.empty() || std::filesystem::path(lora.base).is_absolute())
        core::fail("{}: base must be a path from the model's folder to its base model",
                   config.where());
    return lora;
}

json json_of(const LowRank& lora) { return {{"rank", lora.rank}, {"base", lora.base}}; }

Assignment assignment_of(const core::JsonObject& config) {
    Assignment assignment{
        config.integer_or("student", -1, -1, any_integer), {}, config.text_or("partition", "")};
    if (config.has("cell")) assignment.cell = config.integers("cell", 0, any_integer);
    return assignment;
}

json json_of(const Assignment& assignment) {
    json config{{"student", assignment.student}, {"partition", assignment.partition}};
    if (assignment.cell) config["cell"] = *assignment.cell;
    return config;
}

Quantisation quantisation_of(const core::JsonObject& config) {
    Quantisation quantisation;
    quantisation.samples = config.integer_or("samples", 0, 0, any_integer);
    quantisation.seed = static_cast<std::uint64_t>(config.integer_or("seed", 0, 0, any_integer));
    quantisation.tolerance = config.number_or("tolerance", 0, 0, any_number);
    quantisation.error = config.number_or("error", 0, 0, any_number);
    if (!config.has("layers")) return quantisation;
    const json& layers = config.json().at("layers");
    if (!layers.is_array()) core::fail("{}: \"layers\" must be a list", config.where());
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const core::JsonObject layer(layers[i], fmt::format("{}: layers[{}]", config.where(), i));
        quantisation.layers.push_back({layer.text("layer"), layer.text("precision"),
                                       layer.number("error", 0, any_number),
                                       layer.number("share_of_work", 0, any_number),
                                       layer.number("input_range", 0, any_number)});
    }
    return quantisation;
}

json json_of(const Quantisation& quantisation) {
    json layers = json::array();
    for (const Quantisation::Layer& layer : quantisation.layers) {
        layers.push_back({{"layer", layer.name},
                          {"precision", layer.precision},
                          {"error", layer.error},
                          {"share_of_work", layer.share_of_work},
                          {"input_range", layer.input_range}});
    }
    return {{"weights", "int8, symmetric, a scale a channel"},
            {"inputs", "int8, symmetric, a range a layer"},
            {"samples", quantisation.samples},
            {"seed", quantisation.seed},
            {"tolerance", quantisation.tolerance},
            {"error", quantisation.error},
            {"layers", layers}};
}

Provenance provenance_of(const core::JsonObject& config) {
    Provenance provenance{.made_by = config.text_or("made_by", ""),
                          .data = config.text_or("data", ""),
                          .teacher = config.text_or("teacher", "")};
    if (config.has("seed")) provenance.seed = config.integer("seed", 0, any_integer);
    if (config.has("prior")) provenance.prior = config.numbers("prior");
    return provenance;
}

json json_of(const Provenance& provenance) {
    json config = json::object();
    const auto set = [&](const char* key, const std::string& text) {
        if (!text.empty()) config[key] = text;
    };
    set("made_by", provenance.made_by);
    set("data", provenance.data);
    set("teacher", provenance.teacher);
    if (provenance.seed) config["seed"] = *provenance.seed;
    if (provenance.prior) config["prior"] = *provenance.prior;
    return config;
}

/// Writes a part of a card that differs from what `config` says.
template <class Part>
void update(json& config, const char* key, const std::optional<Part>& before,
            const std::optional<Part>& now) {
    if (before == now) return;
    if (!now) config.erase(key);
    else if constexpr (std::is_arithmetic_v<Part>) config[key] = *now;
    else config[key] = json_of(*now);
}

}  // namespace

ModelCard card_of(const nlohmann::json& config, const std::string& where) {
    const core::JsonObject source(config, where);
    ModelCard card;
    card.config = config;
    card.config.erase(checksums_key);  // they apply to the files beside it only
    card.network = networks::make_network(source);
    card.noise = diffusion::NoiseSchedule::read(source);
    card.spec = spec_of(source, card.network);
    card.condition = condition_of(source, card.network);
    if (source.has("lora")) card.lora = low_rank_of(source.object("lora"));
    if (source.has("place")) card.assignment = assignment_of(source.object("place"));
    card.steps = source.integer_or("steps", 1, 1, ModelCard::most_steps);
    if (source.has("guidance")) card.guidance = source.number("guidance", 0, any_number);
    if (source.has("quantisation"))
        card.quantisation = quantisation_of(source.object("quantisation"));
    if (source.has("provenance")) card.provenance = provenance_of(source.object("provenance"));
    if (source.has("weights")) {
        const core::JsonObject weights = source.object("weights");
        for (const auto& [file, about] : weights.json().items())
            card.weights[file] = weights.text(file);
    }
    return card;
}

nlohmann::json json_of(const ModelCard& card) {
    const ModelCard before = card_of(card.config, "config.json");
    json config = card.config;
    if (card.noise != before.noise) card.noise.write(config);
    if (card.reads_text() != before.reads_text()) {
        if (card.reads_text()) config["condition"] = "text";
        else config.erase("condition");
    }
    update(config, "lora", before.lora, card.lora);
    update(config, "place", before.assignment, card.assignment);
    if (card.steps != before.steps) config["steps"] = card.steps;
    update(config, "guidance", before.guidance, card.guidance);
    update(config, "quantisation", before.quantisation, card.quantisation);
    if (card.provenance != before.provenance) config["provenance"] = json_of(card.provenance);
    if (card.weights != before.weights) {
        if (card.weights.empty()) config.erase("weights");
        else config["weights"] = card.weights;
    }
    return config;
}

ModelCard read_card(const std::filesystem::path& directory) {
    const auto path = directory / "config.json";
    if (!std::filesystem::exists(path)) reject_as_model(directory);
    const nlohmann::json config = core::read_json(path);
    if (config.is_object() && !config.contains("architecture") &&
        (config.contains("_class_name") || config.contains("architectures")))
        reject_as_model(directory);
    return card_of(config, path.string());
}

void write_card(const std::filesystem::path& directory, const ModelCard& card,
                const std::vector<std::string>& files) {
    nlohmann::json config = json_of(card);
    config[checksums_key] = checksums_of(directory, files);
    core::write_json(directory / "config.json", config);
}

}  // namespace atelier::models
