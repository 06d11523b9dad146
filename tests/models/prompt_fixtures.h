#pragma once

#include "atelier/conditions/bpe_training.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/prompt_encoder.h"
#include "models/model_fixtures.h"

/// Prompt encoders and text-conditioned ensembles, small enough to be created in every test.
namespace atelier::models {

/// Embeddings of length 8: the first cell is along the first axis, the other opposite.
inline conditions::PromptPartition two_cells() {
    return {.centroids = {{1, 0, 0, 0, 0, 0, 0, 0}, {-1, 0, 0, 0, 0, 0, 0, 0}},
            .offsets = {0, 0},
            .null_owner = 0,
            .method = "kmeans",
            .encoder = "test"};
}

/// Text tower and tokenizer beside a model in `directory`.
inline void write_tiny_encoder(const std::filesystem::path& directory, std::uint64_t seed = 3) {
    std::filesystem::create_directories(directory / "tokenizer");
    std::filesystem::create_directories(directory / "text_encoder");
    const std::vector<std::string> texts{"a white shoe", "two black bags", "a shoe, two bags"};
    conditions::write_learned_tokenizer(directory / "tokenizer", texts, 40, 12);
    const conditions::ClipTokenizer tokenizer(directory / "tokenizer");
    const nlohmann::json config{{"model_type", "clip_text_model"},
                                {"vocab_size", tokenizer.size()},
                                {"hidden_size", 8},
                                {"intermediate_size", 16},
                                {"num_hidden_layers", 1},
                                {"num_attention_heads", 2},
                                {"max_position_embeddings", 12},
                                {"eos_token_id", tokenizer.end()}};
    core::write_json(directory / "text_encoder" / "config.json", config);
    const auto specs =
        parameters_of(networks::ClipText::of(core::JsonObject(config, "config.json")));
    backends::Parameters parameters = backends::initialise(specs, seed);
    for (const auto& [name, tensor] : parameters.tensors())
        tensor.add_(at::sin(at::arange(tensor.numel(), at::kFloat) * 1.7).view(tensor.sizes()),
                    0.5);
    backends::write_parameters(directory / "text_encoder" / "model.safetensors", parameters);
}

/// A student or teacher conditioned on embeddings of length 8 that generates 4x4 images.
inline nlohmann::json reading_config() {
    return {{"architecture", "adm_unet"},
            {"resolution", 4},
            {"channels", 1},
            {"classes", 8},
            {"model_channels", 8},
            {"channel_mult", {1}},
            {"num_blocks", 1},
            {"attention_resolutions", nlohmann::json::array()},
            {"channel_mult_emb", 4},
            {"sigma_data", 0.5},
            {"condition", "text"}};
}

inline std::filesystem::path write_prompt_ensemble_of_two(const core::TestFolder& folder) {
    const auto cells = two_cells();
    std::vector<std::filesystem::path> students;
    for (std::int64_t k = 0; k < 2; ++k) {
        nlohmann::json config = reading_config();
        config["place"] = {{"student", k}, {"partition", cells.hash()}};
        students.push_back(folder / fmt::format("student-{}", k));
        write_model(students.back(), tiny_model(config, static_cast<std::uint64_t>(50 + k)));
    }
    write_tiny_encoder(folder / "encoder");
    write_prompt_ensemble(folder / "prompts", cells, folder / "encoder", students, "teacher's hash",
                          nlohmann::json::object());
    return folder / "prompts";
}

}  // namespace atelier::models
