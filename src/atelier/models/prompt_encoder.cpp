#include "atelier/models/prompt_encoder.h"

#include "atelier/core/error.h"
#include "atelier/diffusion/encoded_text.h"
#include "atelier/models/diffusers_directory.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t batch_size = 256;
constexpr const char *tower_folder = "text_encoder", *tokenizer_folder = "tokenizer";

}  // namespace

Tensor token_ids(const conditions::ClipTokenizer& tokenizer, std::span<const std::string> prompts) {
    std::vector<std::int64_t> all;
    for (const std::string& prompt : prompts) {
        const auto ids = tokenizer.encode_padded(prompt);
        all.insert(all.end(), ids.begin(), ids.end());
    }
    return at::tensor(all, at::kLong)
        .view({static_cast<std::int64_t>(prompts.size()), tokenizer.length()});
}

Tensor PromptEncoder::embed(std::span<const std::string> prompts) const {
    at::NoGradGuard no_gradients;
    std::vector<Tensor> parts;
    for (std::size_t first = 0; first < prompts.size(); first += batch_size) {
        parts.push_back(encode(prompts.subspan(first, std::min(batch_size, prompts.size() - first)))
                            .embeddings);
    }
    return at::cat(parts);
}

diffusion::EncodedText PromptEncoder::encode(std::span<const std::string> prompts) const {
    at::NoGradGuard no_gradients;
    return diffusion::encode_text(tower, parameters, token_ids(tokenizer, prompts));
}

bool has_prompt_encoder(const fs::path& directory) {
    return fs::is_regular_file(directory / tower_folder / "config.json");
}

void reject_prompts(const fs::path& directory) {
    if (has_prompt_encoder(directory)) {
        throw core::UsageError(directory.string() +
                               ": reads prompts, and this works with classes only; sample "
                               "--prompt, route --prompt and evaluate read prompts");
    }
}

PromptEncoder read_prompt_encoder(const fs::path& directory) {
    const fs::path file = directory / tower_folder / "config.json";
    const nlohmann::json config = core::read_json(file);
    const networks::ClipText tower =
        networks::ClipText::of(core::JsonObject(config, file.string()));
    const DiffusersWeights weights(directory / tower_folder);
    weights.check_against(parameters_of(tower));
    PromptEncoder encoder{tower, weights.read(),
                          conditions::ClipTokenizer(directory / tokenizer_folder)};
    if (!encoder.parameters.all_finite())
        core::fail("{}: holds values that are not finite; the file is damaged",
                   (directory / tower_folder).string());
    if (encoder.tokenizer.size() > encoder.tower.vocabulary ||
        encoder.tokenizer.length() > encoder.tower.positions) {
        core::fail("{}: reads {} tokens of {}; the tokenizer beside it gives up to {} of {}",
                   file.string(), encoder.tower.positions, encoder.tower.vocabulary,
                   encoder.tokenizer.length(), encoder.tokenizer.size());
    }
    return encoder;
}

}  // namespace atelier::models
