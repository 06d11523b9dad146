#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "atelier/cli/commands.h"
#include "atelier/pipeline/run_config.h"

namespace atelier::cli {

namespace {

/// An option, or all positional arguments of a command together, as a shell completes them.
struct Word {
    enum class Takes { nothing, number, choice, file };
    std::vector<std::string> names;  // with dashes
    std::string about;
    Takes takes = Takes::nothing;
    std::vector<std::string> choices;
};

/// Whether a command's first argument is a config followed by key=value pairs: never, possibly, or
/// always.
enum class Config { none, possible, only };

struct Command {
    std::string name, about;
    std::vector<Word> options;
    Word arguments;
    Config config = Config::none;
};

/// Every key of a run's config, as "teacher.steps=".
std::vector<std::string> config_keys() {
    pipeline::RunConfig config;
    std::vector<std::string> keys;
    const auto flatten = [&](const auto& self, const nlohmann::json& values,
                             const std::string& prefix) -> void {
        for (const auto& [key, value] : values.items()) {
            if (value.is_object()) self(self, value, prefix + key + ".");
            else keys.push_back(prefix + key + "=");
        }
    };
    flatten(flatten, pipeline::schema_of(config).values(), "");
    return keys;
}

std::string keys_text() { return fmt::format("{}", fmt::join(config_keys(), " ")); }

/// The choices of CLI11's type name "TEXT:{a,b}"; empty for free text.
std::vector<std::string> choices_in(const std::string& type) {
    const std::size_t open = type.find('{'), end = type.find('}');
    if (open == std::string::npos || end == std::string::npos) return {};
    return CLI::detail::split(type.substr(open + 1, end - open - 1), ',');
}

/// Whether an option's value is free text rather than a file name.
bool is_free_text(const CLI::Option& option) {
    static const std::set<std::string> names{"class",       "classes", "prompt",
                                             "negative",    "encoder", "host",
                                             "cors-origin", "device",  "route-to"};
    return std::ranges::any_of(option.get_lnames(),
                               [&](const std::string& name) { return names.contains(name); });
}

Word word_of(const CLI::Option& option) {
    Word word{.about = option.get_description()};
    for (const std::string& name : option.get_snames()) word.names.push_back("-" + name);
    for (const std::string& name : option.get_lnames()) word.names.push_back("--" + name);
    const std::string type = option.get_type_name();
    word.choices = choices_in(type);
    if (option.get_items_expected_max() == 0) word.takes = Word::Takes::nothing;
    else if (!word.choices.empty()) word.takes = Word::Takes::choice;
    else
        word.takes = type.starts_with("TEXT") && !is_free_text(option) ? Word::Takes::file
                                                                       : Word::Takes::number;
    return word;
}

Command command_of(const CLI::App& app) {
    Command command{.name = app.get_name(), .about = app.get_description()};
    for (const CLI::Option* option : app.get_options()) {
        if (option->get_group().empty()) continue;  // hidden
        Word word = word_of(*option);
        if (option->get_name(true) == "CONFIG") command.config = Config::only;
        else if (option->get_positional() && word.about.find("*.toml") != std::string::npos)
            command.config = Config::possible;
        if (option->nonpositional()) command.options.push_back(std::move(word));
        else if (command.arguments.takes != Word::Takes::choice)
            command.arguments = std::move(word);
    }
    return command;
}

std::vector<Command> commands_of(const CLI::App& app) {
    std::vector<Command> commands;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
        commands.push_back(command_of(*command));
    return commands;
}

std::vector<std::string> names_of(const std::vector<Word>& options) {
    std::vector<std::string> names;
    for (const Word& word : options)
        names.insert(names.end(), word.names.begin(), word.names.end());
    return names;
}

/// `text` with a backslash before each of `special`.
std::string escaped(const std::string& text, std::string_view special) {
    std::string out;
    for (const char c : text) {
        if (special.find(c) != std::string_view::npos) out += '\\';
        out += c;
    }
    return out;
}

std::string bash_words(const std::vector<std::string>& words) {
    return fmt::format("mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\")",
                       fmt::join(words, " "));
}

std::string bash_value(const Word& word) {
    switch (word.takes) {
        case Word::Takes::choice:
            return bash_words(word.choices);
        case Word::Takes::file:
            return "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$word\")";
        case Word::Takes::nothing:
        case Word::Takes::number:
            break;
    }
    return ":";
}

std::string bash_command(const Command& command) {
    std::string text = fmt::format("        {})\n            case $before in\n", command.name);
    for (const Word& word : command.options) {
        if (word.takes != Word::Takes::nothing)
            text += fmt::format("                {}) {}; return ;;\n", fmt::join(word.names, "|"),
                                bash_value(word));
    }
    text += fmt::format("            esac\n            if [[ $word == -* ]]; then {}\n",
                        bash_words(names_of(command.options)));
    if (command.config != Config::none && command.name != "classifier") {
        text +=
            "            elif [[ $config ]]; then compopt -o nospace; mapfile -t COMPREPLY < "
            "<(compgen -W \"$keys\" -- \"$word\")\n";
    }
    const bool only = command.config == Config::only;
    return text + fmt::format("            else {}; fi ;;\n",
                              only ? "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -X "
                                     "'!*.toml' -- \"$word\"; compgen -d -- \"$word\")"
                                   : bash_value(command.arguments));
}

std::string bash_script(const Command& program, const std::vector<Command>& commands) {
    std::vector<std::string> first;
    std::string cases;
    for (const Command& command : commands) {
        first.push_back(command.name);
        cases += bash_command(command);
    }
    // Bash splits words at "=": the word after a key or name is completed as a file name.
    return "_atelier() {\n    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD "
           "- 1]} command= config= one\n    COMPREPLY=()\n"
           "    local keys='" +
           keys_text() +
           "'\n"
           "    for one in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n        if [[ $one == *.toml "
           "]]; then config=$one; fi\n        if [[ $one != -* && ! $command ]]; then "
           "command=$one; fi\n    done\n"
           "    if [[ $before == '=' ]]; then compopt -o filenames; mapfile -t COMPREPLY < "
           "<(compgen -f -- \"$word\"); return; fi\n"
           "    if [[ $word == '=' ]]; then compopt -o filenames; mapfile -t COMPREPLY < <(compgen "
           "-f); return; fi\n    case $command in\n"
           "        '') if [[ $word == -* ]]; then " +
           bash_words(names_of(program.options)) + "; else " + bash_words(first) + "; fi ;;\n" +
           cases + "    esac\n}\ncomplete -F _atelier atelier\n";
}

std::string zsh_text(const std::string& text) {
    std::string quoted;
    for (const char c : escaped(text, "[]:\\")) quoted += c == '\'' ? "'\\''" : std::string(1, c);
    return quoted;
}

std::string zsh_value(const Word& word) {
    switch (word.takes) {
        case Word::Takes::nothing:
            return "";
        case Word::Takes::number:
            return ":number:";
        case Word::Takes::choice:
            return fmt::format(":choice:({})", fmt::join(word.choices, " "));
        case Word::Takes::file:
            return ":file:_files";
    }
    return "";
}

/// Arguments of zsh's _arguments.
std::string zsh_options(const std::vector<Word>& options) {
    std::string text;
    for (const Word& word : options) {
        for (const std::string& name : word.names)
            text += fmt::format(" \\\n                '{}[{}]{}'", name, zsh_text(word.about),
                                zsh_value(word));
    }
    return text;
}

std::string zsh_script(const Command& program, const std::vector<Command>& commands) {
    std::string list, cases;
    for (const Command& command : commands) {
        list += fmt::format("        '{}:{}'\n", command.name, zsh_text(command.about));
        cases +=
            fmt::format("            {}) _arguments{}", command.name, zsh_options(command.options));
        if (command.config == Config::only)
            cases += " \\\n                '1:config:_files -g \"*.toml\"'";
        else if (command.config == Config::possible)
            cases += " \\\n                '1:file:_files'";
        if (command.config != Config::none)
            cases += " \\\n                '*:setting:_atelier_settings'";
        else if (command.arguments.takes != Word::Takes::nothing)
            cases += fmt::format(" \\\n                '*{}'", zsh_value(command.arguments));
        cases += " ;;\n";
    }
    return "#compdef atelier\n\n_atelier_settings() {\n    if [[ $PREFIX == *=* ]]; then compset "
           "-P '*='; _files; else compadd -S '' -- " +
           keys_text() + "; fi\n}\n\n_atelier() {\n    local state\n    local -a commands=(\n" +
           list + "    )\n    _arguments -C" + zsh_options(program.options) +
           " \\\n                '1:command:->command' '*::argument:->argument'\n    case $state "
           "in\n        command) _describe command commands ;;\n"
           "        argument) case $words[1] in\n" +
           cases +
           "        esac ;;\n    esac\n}\n\nif [[ $funcstack[1] == _atelier ]]; then _atelier "
           "\"$@\"; else compdef _atelier atelier; fi\n";
}

std::string fish_text(const std::string& text) { return escaped(text, "'\\"); }

std::string fish_value(const Word& word) {
    switch (word.takes) {
        case Word::Takes::nothing:
            return "";
        case Word::Takes::number:
            return " -x";
        case Word::Takes::choice:
            return fmt::format(" -x -a '{}'", fmt::join(word.choices, " "));
        case Word::Takes::file:
            return " -r -F";
    }
    return "";
}

std::string fish_options(const std::string& when, const std::vector<Word>& options) {
    std::string text;
    for (const Word& word : options) {
        text += "complete -c atelier -n " + when;
        for (const std::string& name : word.names)
            text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
        text += fmt::format(" -d '{}'{}\n", fish_text(word.about), fish_value(word));
    }
    return text;
}

std::string fish_script(const Command& program, const std::vector<Command>& commands) {
    std::string text = "set -g __atelier_keys " + keys_text() + "\n" +
                       fish_options("__fish_use_subcommand", program.options);
    for (const Command& command : commands) {
        text += fmt::format("complete -c atelier -n __fish_use_subcommand -f -a {} -d '{}'\n",
                            command.name, fish_text(command.about));
        const std::string when = fmt::format("'__fish_seen_subcommand_from {}'", command.name);
        if (command.arguments.takes == Word::Takes::choice)
            text += fmt::format("complete -c atelier -n {} -f -a '{}'\n", when,
                                fmt::join(command.arguments.choices, " "));
        if (command.config == Config::only)
            text += fmt::format(
                "complete -c atelier -n {} -f -a '(__fish_complete_suffix .toml)'\n", when);
        if (command.config != Config::none && command.name != "classifier")
            text += fmt::format("complete -c atelier -n {} -a \"$__atelier_keys\"\n", when);
        text += fish_options(when, command.options);
    }
    return text;
}

}  // namespace

void add_completions_command(CLI::App& app) {
    auto shell = std::make_shared<std::string>();
    CLI::App* command = app.add_subcommand(
        "completions",
        "Write the script with which a shell completes atelier's commands and options");
    command->add_option("SHELL", *shell, "whose script")
        ->required()
        ->check(CLI::IsMember({"bash", "zsh", "fish"}));
    command->footer(
        "Examples:\n  source <(atelier completions bash)\n  atelier completions bash > "
        "~/.local/share/bash-completion/completions/atelier\n"
        "  atelier completions zsh > ~/.zfunc/_atelier      # a folder of fpath\n  atelier "
        "completions fish > ~/.config/fish/completions/atelier.fish");
    command->callback([shell, &app] {
        const auto script = *shell == "bash"  ? bash_script
                            : *shell == "zsh" ? zsh_script
                                              : fish_script;
        std::cout << script(command_of(app), commands_of(app));
    });
}

}  // namespace atelier::cli
