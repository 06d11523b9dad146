#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <iostream>

#include "atelier/cli/commands.h"
#include "atelier/conditions/clip_tokenizer.h"
#include "atelier/conditions/prompt_hints.h"
#include "atelier/core/json_file.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

struct TokenizeArguments {
    std::string model;
    std::vector<std::string> texts;
    bool json = false;
};

void tokenize(const TokenizeArguments& arguments) {
    const fs::path model = arguments.model;
    const conditions::ClipTokenizer tokenizer(
        fs::is_directory(model / "tokenizer") ? model / "tokenizer" : model);
    nlohmann::json all = nlohmann::json::array();
    for (const std::string& text : arguments.texts) {
        conditions::warn_about_prompt("TEXT", text, tokenizer);
        if (arguments.json) all.push_back(tokenizer.encode_padded(text));
        else std::cout << fmt::format("{}\n", fmt::join(tokenizer.encode(text), " "));
    }
    if (arguments.json) std::cout << core::json_text(all) << std::endl;
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
    auto arguments = std::make_shared<TokenizeArguments>();
    CLI::App* command =
        app.add_subcommand("tokenize", "Print the ids that a text encoder reads for prompts");
    command
        ->add_option(
            "MODEL", arguments->model,
            "a diffusers directory, or a folder with vocab.json and merges.txt or tokenizer.json")
        ->required();
    command->add_option("TEXT", arguments->texts, "prompts")->required();
    command->add_flag("--json", arguments->json,
                      "one list of lists, each padded to the model's length; without: one line per "
                      "prompt, not padded");
    command->footer(
        "Example:\n  atelier tokenize stable-diffusion-v1-5 --json \"a boat at dawn\" \"\"");
    command->callback([arguments] { tokenize(*arguments); });
}

}  // namespace atelier::cli
