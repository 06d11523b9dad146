#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "atelier/data/sample_spec.h"
#include "atelier/diffusion/noise_schedule.h"
#include "atelier/networks/network.h"

namespace atelier::models {

/// What a model's network is conditioned on.
enum class ConditionKind { none, classes, text };

/// Low-rank deltas: their rank, and the path from the model's folder to the base model.
struct LowRank {
    std::int64_t rank = 0;
    std::string base;

    bool operator==(const LowRank&) const = default;
};

/// Which student of which partition a model is.
struct Assignment {
    std::int64_t student = 0;
    std::optional<std::vector<std::int64_t>> cell;  // its classes; none where students own prompts
    std::string partition;                          // the partition's hash

    bool operator==(const Assignment&) const = default;
};

/// How a model was quantised to int8.
struct Quantisation {
    struct Layer {
        std::string name, precision;  // "int8" or "bf16"
        double error = 0;             // of the network's output, if it alone is int8
        double share_of_work = 0, input_range = 0;

        bool operator==(const Layer&) const = default;
    };
    std::int64_t samples = 0;
    std::uint64_t seed = 0;
    double tolerance = 0, error = 0;  // what was allowed, and what all layers make together
    std::vector<Layer> layers;

    bool operator==(const Quantisation&) const = default;
};

/// Where a model comes from; empty where unknown.
struct Provenance {
    std::string made_by;
    std::optional<std::int64_t> seed;
    std::string data, teacher;                 // hashes
    std::optional<std::vector<double>> prior;  // weights of the classes in training

    bool operator==(const Provenance&) const = default;
};

/// A model without its weights: what its config.json says. `card_of`, `json_of` and the functions
/// below are the only ones that see JSON.
struct ModelCard {
    networks::Network network;
    diffusion::NoiseSchedule noise;
    data::SampleSpec spec;
    ConditionKind condition = ConditionKind::none;
    std::optional<LowRank> lora;
    std::optional<Assignment> assignment;
    std::int64_t steps = 1;          // evaluations in which a student samples, up to most_steps
    std::optional<double> guidance;  // the scale with which it is sampled unless another is given
    std::optional<Quantisation> quantisation;
    Provenance provenance;
    std::map<std::string, std::string> weights;  // what each file of weights holds

    /// What the card was read from: its network's sizes, which networks::make_network reads, and
    /// keys that no field stands for, which are kept.
    nlohmann::json config = nlohmann::json::object();

    static constexpr std::int64_t most_steps = 4;

    /// Whether it is the student of a partition, and samples in `steps`.
    bool is_student() const { return assignment.has_value(); }
    bool reads_text() const { return condition == ConditionKind::text; }
};

/// The card that a config.json describes; `where` begins messages. Throws core::Error naming the
/// key.
ModelCard card_of(const nlohmann::json& config, const std::string& where);

/// The config.json of a card, without checksums. What was read is written again byte for byte.
nlohmann::json json_of(const ModelCard& card);

/// Reads the config.json of a model directory. Throws core::Error if it is none.
ModelCard read_card(const std::filesystem::path& directory);

/// Writes config.json atomically, with the checksums of the files of weights `files` beside it.
void write_card(const std::filesystem::path& directory, const ModelCard& card,
                const std::vector<std::string>& files);

}  // namespace atelier::models
