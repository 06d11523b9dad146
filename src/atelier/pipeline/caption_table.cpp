#include "atelier/pipeline/caption_table.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "atelier/conditions/bpe_training.h"
#include "atelier/conditions/prompt_hints.h"
#include "atelier/conditions/prompt_partition.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/pipeline/latent_data.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;

constexpr const char* text_tower_prefix = "text_model.";  // of a text tower's parameters

std::map<std::string, std::string> origin(RunContext& context) {
    return {{"teacher", backends::hash_of(context.teacher().parameters)},
            {"data", context.data()->hash()}};
}

/// Whether the teacher attends to a caption's token states, not its embedding.
bool reads_states(RunContext& context) { return context.teacher().network.tokens > 0; }

}  // namespace

std::int64_t class_count(const data::Dataset& data) {
    return data.captions().empty() ? data.classes() : 0;
}

std::int64_t label_width(const RunConfig& config, const data::Dataset& data) {
    return data.captions().empty() ? data.classes() : config.text.width;
}

void check_captions(const RunConfig& config, const data::Dataset& data) {
    const PartitionConfig& partition = config.partition;
    const std::vector<std::string> methods = conditions::prompt_partition_methods();
    if (std::ranges::find(methods, partition.method) == methods.end()) {
        throw core::UsageError(
            fmt::format("partition.method = \"{}\" is for classes; captions are split by their "
                        "embeddings, with {}",
                        partition.method, fmt::join(methods, " or ")));
    }
    if (partition.students > static_cast<std::int64_t>(data.captions().size()))
        throw core::UsageError("partition.students: there are fewer captions than students");
}

nlohmann::json begin_text_tower(const RunContext& context, const data::Dataset& data,
                                const fs::path& teacher) {
    const TextConfig& text = context.config().text;
    if (context.ranks().leads()) {
        fs::create_directories(teacher / "tokenizer");
        conditions::write_learned_tokenizer(teacher / "tokenizer", data.captions(), text.merges,
                                            text.tokens);
    }
    const conditions::ClipTokenizer tokenizer(teacher / "tokenizer");
    return {{"model_type", "clip_text_model"},     {"architectures", {"CLIPTextModel"}},
            {"vocab_size", tokenizer.size()},      {"hidden_size", text.width},
            {"intermediate_size", 4 * text.width}, {"num_hidden_layers", text.layers},
            {"num_attention_heads", text.heads},   {"max_position_embeddings", text.tokens},
            {"hidden_act", "quick_gelu"},          {"layer_norm_eps", 1e-5},
            {"bos_token_id", tokenizer.begin()},   {"eos_token_id", tokenizer.end()},
            {"pad_token_id", tokenizer.pad()}};
}

diffusion::ConditionTable caption_ids(const data::Dataset& data, const fs::path& teacher) {
    const conditions::ClipTokenizer tokenizer(teacher / "tokenizer");
    const std::string empty;
    conditions::LongPrompts long_prompts(tokenizer);
    for (const std::string& caption : data.captions()) long_prompts.add(caption);
    long_prompts.warn("data.path", "captions");
    return diffusion::ConditionTable::texts(models::token_ids(tokenizer, data.captions()),
                                            models::token_ids(tokenizer, {&empty, 1})[0]);
}

backends::Parameters without_text_tower(const backends::Parameters& parameters) {
    backends::Parameters others;
    for (const auto& [name, tensor] : parameters.tensors()) {
        if (!name.starts_with(text_tower_prefix)) others.set(name, tensor);
    }
    return others;
}

void finish_text_tower(const fs::path& teacher, const nlohmann::json& config,
                       const backends::Parameters& parameters) {
    backends::Parameters text;
    text.merge(parameters.subset(text_tower_prefix), text_tower_prefix);
    fs::create_directories(teacher / "text_encoder");
    backends::write_parameters(teacher / "text_encoder" / "model.safetensors", text,
                               {{"format", "pt"}});
    core::write_json(teacher / "text_encoder" / "config.json", config);
}

fs::path caption_embeddings(RunContext& context) {
    const fs::path path = context.output() / "captions.safetensors";
    const auto of = origin(context);
    if (fs::exists(path) && core::SafetensorsFile(path).metadata() == of) return path;
    const auto& captions = context.data()->captions();
    if (reads_states(context)) {
        const CaptionStates states = caption_states(context);
        backends::write_parameters(
            path,
            backends::Parameters(
                {{"embeddings", states.embeddings(static_cast<std::int64_t>(captions.size()))},
                 {"none", states.none_embedding.unsqueeze(0)}}),
            of);
        return path;
    }
    models::PromptEncoder encoder = models::read_prompt_encoder(context.output() / "teacher");
    encoder.parameters = encoder.parameters.to(context.device());
    const std::string empty;
    core::log::info("captions: {} embedded in {} values each", captions.size(),
                    encoder.tower.width);
    backends::write_parameters(
        path,
        backends::Parameters({{"embeddings", encoder.embed(captions).to(at::kCPU)},
                              {"none", encoder.embed({&empty, 1}).to(at::kCPU)}}),
        of);
    return path;
}

diffusion::ConditionTable caption_table(RunContext& context) {
    if (reads_states(context)) {
        const auto states = std::make_shared<const CaptionStates>(caption_states(context));
        const auto rows = [states](std::span<const std::int64_t> indices) {
            return states->shards.rows("states", indices);
        };
        return diffusion::ConditionTable::stored(
            static_cast<std::int64_t>(context.data()->captions().size()), rows,
            states->none_states);
    }
    const backends::Parameters tables = backends::read_parameters(caption_embeddings(context));
    return diffusion::ConditionTable::embeddings(tables.at("embeddings"), tables.at("none")[0]);
}

}  // namespace atelier::pipeline
