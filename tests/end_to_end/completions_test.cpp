#include "end_to_end/program.h"

#include <cstdio>
#include <regex>
#include <set>
#include <sstream>

namespace atelier::end_to_end {
namespace {

/// Bash's completions for the last of `words`, in the project's folder.
std::set<std::string> completed(const Folder& folder, const std::string& words) {
    std::ofstream(folder / "ask") << "cd '" ATELIER_SOURCE_DIR "'\nsource '" << folder / "bash"
                                  << "'\nCOMP_WORDS=(" << words
                                  << ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\ncompopt() { :; "
                                     "}\n_atelier\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
    std::set<std::string> offered;
    FILE* bash = ::popen(("bash '" + folder / "ask" + "'").c_str(), "r");
    char line[4096];
    while (std::fgets(line, sizeof line, bash) != nullptr)
        offered.insert(std::string(line).substr(0, std::string(line).size() - 1));
    EXPECT_EQ(::pclose(bash), 0);
    offered.erase("");
    return offered;
}

TEST(Completions, bash_completes_commands_options_choices_and_files) {
    const Folder folder;
    std::ofstream(folder / "bash") << succeed({"completions", "bash"}).out;
    using Words = std::set<std::string>;
    EXPECT_EQ(completed(folder, "atelier sa"), Words{"sample"});
    EXPECT_EQ(completed(folder, "atelier -q inspe"), Words{"inspect"});
    EXPECT_EQ(completed(folder, "atelier sample --se"), Words{"--seed"});
    EXPECT_EQ(completed(folder, "atelier sample x --precision ''"),
              (Words{"auto", "fp32", "bf16", "int8"}));
    EXPECT_EQ(completed(folder, "atelier sample --sampler d"), (Words{"ddim", "dpm++"}));
    EXPECT_EQ(completed(folder, "atelier distill x --stage ''"), (Words{"tsm", "dm", "adm"}));
    EXPECT_EQ(completed(folder, "atelier completions z"), Words{"zsh"});
    EXPECT_EQ(completed(folder, "atelier run configs/toy2d"), Words{"configs/toy2d.toml"});
    EXPECT_EQ(completed(folder, "atelier run README"), Words{}) << "no config";
    EXPECT_TRUE(
        completed(folder, "atelier run configs/toy2d.toml teacher.st").contains("teacher.steps="));
    EXPECT_EQ(completed(folder, "atelier run configs/toy2d.toml teacher.path = REA"),
              Words{"README.md"})
        << "bash splits it into three words";
    EXPECT_TRUE(completed(folder, "atelier ''").contains("sample"));
    EXPECT_FALSE(completed(folder, "atelier ''").contains("--version"));
    EXPECT_TRUE(completed(folder, "atelier --v").contains("--version"));
    EXPECT_EQ(completed(folder, "atelier serve --api-keys READ"), Words{"README.md"});
    EXPECT_EQ(completed(folder, "atelier serve --max-batch ''"), Words{})
        << "numbers are not completed";
    EXPECT_EQ(completed(folder, "atelier sample --class ''"), Words{}) << "nor are classes";
}

/// The long options listed by `atelier COMMAND --help`.
std::set<std::string> options_of(const std::string& command) {
    std::set<std::string> found;
    std::istringstream help(succeed({command, "--help"}).out);
    const std::regex option("^ +(?:-[a-z],)?(--[a-z0-9-]+).*");
    std::smatch match;
    for (std::string line; std::getline(help, line) && !line.starts_with("Example");) {
        if (std::regex_match(line, match, option)) found.insert(match[1]);
    }
    return found;
}

TEST(Completions, every_shell_completes_every_command_and_option) {
    std::set<std::string> commands;
    std::istringstream help(succeed({"--help"}).out);
    const std::regex command("^  ([a-z]+) {2,}.*");
    std::smatch match;
    bool listed = false;
    for (std::string line; std::getline(help, line) && !line.starts_with("Begin");) {
        listed |= line.starts_with("Subcommands");
        if (listed && std::regex_match(line, match, command)) commands.insert(match[1]);
    }
    ASSERT_GT(commands.size(), 15u);
    const std::string bash = succeed({"completions", "bash"}).out,
                      zsh = succeed({"completions", "zsh"}).out,
                      fish = succeed({"completions", "fish"}).out;
    for (const std::string& one : commands) {
        const std::size_t in_bash = bash.find("        " + one + ")\n"),
                          in_zsh = zsh.find("            " + one + ") _arguments");
        ASSERT_NE(in_bash, std::string::npos) << one;
        ASSERT_NE(in_zsh, std::string::npos) << one;
        expect_contains(fish, "-a " + one + " -d");
        const std::string bash_part = bash.substr(
                              in_bash,
                              bash.find(";;\n        ", bash.find("fi ;;", in_bash)) - in_bash),
                          zsh_part = zsh.substr(in_zsh, zsh.find(" ;;\n", in_zsh) - in_zsh);
        for (const std::string& option : options_of(one)) {
            expect_contains(bash_part, option);
            expect_contains(zsh_part, "'" + option + "[");
            expect_contains(fish, "'__fish_seen_subcommand_from " + one + "'" +
                                      (option == "--help" ? " -s h" : "") + " -l " +
                                      option.substr(2) + " ");
        }
    }
}

}  // namespace
}  // namespace atelier::end_to_end
