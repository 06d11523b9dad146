#include "atelier/cli/caption_table.h"

#include "atelier/cli/latent_data.h"
#include "atelier/cli/prompt_hints.h"
#include "atelier/conditions/bpe_training.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr const char* tower = "text_model.";  // what names of a text tower's parameters begin with

std::map<std::string, std::string> origin(Workshop& workshop) {
    return {{"teacher", ops::hash_of(workshop.teacher().parameters)}, {"data", workshop.data()->hash()}};
}

/// Whether the teacher reads the states of a caption's tokens, not its embedding.
bool reads_states(Workshop& workshop) { return workshop.teacher().network.tokens > 0; }

}  // namespace

std::int64_t class_count(const data::Dataset& data) { return data.captions().empty() ? data.classes() : 0; }

std::int64_t label_width(const RunConfig& config, const data::Dataset& data) { return data.captions().empty() ? data.classes() : config.text.width; }

void check_captions(const RunConfig& config, const data::Dataset& data) {
    const PartitionConfig& partition = config.partition;
    if (partition.method != "kmeans" && partition.method != "balanced") {
        throw core::UsageError(fmt::format("partition.method = \"{}\" is for classes; captions are split by \"kmeans\" over their embeddings, or \"balanced\"", partition.method));
    }
    if (partition.students > static_cast<std::int64_t>(data.captions().size())) throw core::UsageError("partition.students: there are fewer captions than students");
}

nlohmann::json begin_text_tower(const Workshop& workshop, const data::Dataset& data, const fs::path& teacher) {
    const TextConfig& text = workshop.config().text;
    fs::create_directories(teacher / "tokenizer");
    conditions::write_learned_tokenizer(teacher / "tokenizer", data.captions(), text.merges, text.tokens);
    const conditions::ClipTokenizer tokenizer(teacher / "tokenizer");
    return {{"model_type", "clip_text_model"}, {"architectures", {"CLIPTextModel"}}, {"vocab_size", tokenizer.size()}, {"hidden_size", text.width},
            {"intermediate_size", 4 * text.width}, {"num_hidden_layers", text.layers}, {"num_attention_heads", text.heads}, {"max_position_embeddings", text.tokens},
            {"hidden_act", "quick_gelu"}, {"layer_norm_eps", 1e-5}, {"bos_token_id", tokenizer.begin()}, {"eos_token_id", tokenizer.end()}, {"pad_token_id", tokenizer.pad()}};
}

diffusion::ConditionTable caption_ids(const data::Dataset& data, const fs::path& teacher) {
    const conditions::ClipTokenizer tokenizer(teacher / "tokenizer");
    const std::string empty;
    LongPrompts long_ones(tokenizer);
    for (const std::string& caption : data.captions()) long_ones.look_at(caption);
    long_ones.tell("data.path", "captions");
    return diffusion::ConditionTable::texts(models::token_ids(tokenizer, data.captions()), models::token_ids(tokenizer, {&empty, 1})[0]);
}

ops::Parameters without_text_tower(const ops::Parameters& parameters) {
    ops::Parameters rest;
    for (const auto& [name, tensor] : parameters.tensors()) {
        if (!name.starts_with(tower)) rest.set(name, tensor);
    }
    return rest;
}

void finish_text_tower(const fs::path& teacher, const nlohmann::json& config, const ops::Parameters& parameters) {
    ops::Parameters text;
    text.merge(parameters.under(tower), tower);
    fs::create_directories(teacher / "text_encoder");
    ops::write_parameters(teacher / "text_encoder" / "model.safetensors", text, {{"format", "pt"}});
    core::write_json(teacher / "text_encoder" / "config.json", config);
}

fs::path caption_embeddings(Workshop& workshop) {
    const fs::path path = workshop.output() / "captions.safetensors";
    const auto of = origin(workshop);
    if (fs::exists(path) && core::SafetensorsFile(path).metadata() == of) return path;
    const auto& captions = workshop.data()->captions();
    if (reads_states(workshop)) {
        const CaptionStates known = caption_states(workshop);
        ops::write_parameters(path, ops::Parameters({{"embeddings", known.embeddings(static_cast<std::int64_t>(captions.size()))}, {"none", known.none_embedding.unsqueeze(0)}}), of);
        return path;
    }
    const models::PromptEncoder encoder = models::read_prompt_encoder(workshop.output() / "teacher");
    const std::string empty;
    core::log::info("captions: {} embedded as {} numbers each", captions.size(), encoder.tower.width);
    ops::write_parameters(path, ops::Parameters({{"embeddings", encoder.embed(captions)}, {"none", encoder.embed({&empty, 1})}}), of);
    return path;
}

diffusion::ConditionTable caption_table(Workshop& workshop) {
    if (reads_states(workshop)) {
        const auto known = std::make_shared<const CaptionStates>(caption_states(workshop));
        const auto rows = [known](std::span<const std::int64_t> numbers) { return known->shards.rows("states", numbers); };
        return diffusion::ConditionTable::stored(static_cast<std::int64_t>(workshop.data()->captions().size()), rows, known->none_states);
    }
    const ops::Parameters tables = ops::read_parameters(caption_embeddings(workshop));
    return diffusion::ConditionTable::embeddings(tables.at("embeddings"), tables.at("none")[0]);
}

}  // namespace atelier::cli
