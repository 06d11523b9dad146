#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

/// The diagram of layers in ARCHITECTURE.md, the folders and the includes must agree.
namespace atelier {
namespace {

namespace fs = std::filesystem;

const fs::path root = ATELIER_SOURCE_DIR;

std::vector<std::string> lines_of(const fs::path& path) {
    std::ifstream file(path);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
}

/// Module -> layer, 0 the highest: the first indented block of ARCHITECTURE.md, one layer per line.
std::map<std::string, int> layers() {
    std::map<std::string, int> found;
    int layer = 0;
    for (const std::string& line : lines_of(root / "ARCHITECTURE.md")) {
        if (!line.starts_with("    ")) {
            if (!found.empty()) break;
            continue;
        }
        std::istringstream words(line);
        for (std::string module; words >> module;) found[module] = layer;
        ++layer;
    }
    return found;
}

std::vector<fs::path> sources() {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(root / "src" / "atelier")) {
        if (entry.path().extension() == ".h" || entry.path().extension() == ".cpp")
            found.push_back(entry.path());
    }
    return found;
}

std::string module_of(const fs::path& source) {
    return fs::relative(source, root / "src" / "atelier").begin()->string();
}

/// The modules of src/atelier that the sources of each module include, without itself.
std::map<std::string, std::set<std::string>> included_modules() {
    const std::regex include("#include \"atelier/([a-z_]+)/.*");
    std::map<std::string, std::set<std::string>> found;
    for (const fs::path& source : sources()) {
        for (const std::string& line : lines_of(source)) {
            std::smatch match;
            if (std::regex_match(line, match, include) && match[1] != module_of(source))
                found[module_of(source)].insert(match[1]);
        }
    }
    return found;
}

/// The modules that CMakeLists.txt declares, with those that each uses and whether it links
/// LibTorch.
struct Declared {
    std::set<std::string> uses;
    bool torch = false;
};

std::map<std::string, Declared> declared_modules() {
    std::string text;
    for (const std::string& line : lines_of(root / "CMakeLists.txt")) text += line + "\n";
    const std::regex call("\\natelier_module\\(([^)]*)\\)");
    std::map<std::string, Declared> found;
    for (std::sregex_iterator match(text.begin(), text.end(), call), end; match != end; ++match) {
        std::istringstream words((*match)[1].str());
        std::string name, word;
        words >> name;
        Declared& module = found[name];
        while (words >> word) {
            if (word == "TORCH") module.torch = true;
            else if (word != "USES") module.uses.insert(word);
        }
    }
    return found;
}

TEST(Layers, the_diagram_shows_every_module_and_no_other) {
    std::set<std::string> documented, built{"apps"};
    for (const auto& [module, layer] : layers()) documented.insert(module);
    for (const auto& entry : fs::directory_iterator(root / "src" / "atelier"))
        built.insert(entry.path().filename().string());
    EXPECT_EQ(documented, built);
}

TEST(Layers, includes_run_downwards_only) {
    const auto layer = layers();
    ASSERT_GT(sources().size(), 50u);
    const std::regex include("#include \"atelier/([a-z_]+)/.*");
    for (const fs::path& source : sources()) {
        for (const std::string& line : lines_of(source)) {
            std::smatch match;
            if (!std::regex_match(line, match, include) || match[1] == module_of(source)) continue;
            ASSERT_TRUE(layer.contains(match[1])) << source << ": " << line;
            EXPECT_GT(layer.at(match[1]), layer.at(module_of(source))) << source << ": " << line;
        }
    }
}

TEST(Layers, the_python_module_is_beside_cli_and_server) {
    const auto layer = layers();
    const std::regex include("#include \"atelier/([a-z_]+)/.*");
    int includes = 0;
    for (const std::string& line : lines_of(root / "python" / "module.cpp")) {
        std::smatch match;
        if (!std::regex_match(line, match, include)) continue;
        ++includes;
        EXPECT_TRUE(layer.contains(match[1]) && layer.at(match[1]) > layer.at("cli") &&
                    match[1] != "server")
            << line;
    }
    EXPECT_GT(includes, 0);
}

TEST(Layers, declared_dependencies_are_the_includes) {
    const auto included = included_modules();
    const auto declared = declared_modules();
    ASSERT_GT(declared.size(), 10u);
    for (const auto& [module, uses] : included) {
        ASSERT_TRUE(declared.contains(module)) << module;
        EXPECT_EQ(declared.at(module).uses, uses) << module;
    }
}

TEST(Layers, modules_without_torch_stay_without_it) {
    const std::regex torch(
        "#include [<\"](torch|ATen|c10|openvino)/.*|#include \"atelier/backends/.*");
    const auto declared = declared_modules();
    for (const char* module : {"core", "conditions", "kernels", "graph", "networks", "server"})
        EXPECT_FALSE(declared.at(module).torch) << module;
    for (const fs::path& source : sources()) {
        if (declared.at(module_of(source)).torch) continue;
        for (const std::string& line : lines_of(source))
            EXPECT_FALSE(std::regex_match(line, torch)) << source << ": " << line;
    }
}

/// A longer file says why in its first lines: "// over length: ...".
TEST(Layers, files_over_600_lines_say_why) {
    for (const fs::path& source : sources()) {
        const auto lines = lines_of(source);
        if (lines.size() <= 600) continue;
        EXPECT_TRUE(std::any_of(
            lines.begin(), lines.begin() + 10,
            [](const std::string& line) { return line.starts_with("// over length: "); }))
            << source << " has " << lines.size() << " lines";
    }
}

TEST(Documentation, links_lead_to_existing_files) {
    const std::regex link(R"(\]\(([^)#:]+)(#[^)]*)?\))");
    std::vector<fs::path> pages{root / "README.md", root / "ARCHITECTURE.md",
                                root / "CHANGELOG.md"};
    for (const auto& entry : fs::directory_iterator(root / "docs")) {
        if (entry.path().extension() == ".md") pages.push_back(entry.path());
    }
    for (const fs::path& page : pages) {
        for (const std::string& line : lines_of(page)) {
            for (std::sregex_iterator match(line.begin(), line.end(), link), end; match != end;
                 ++match) {
                EXPECT_TRUE(fs::exists(page.parent_path() / (*match)[1].str()))
                    << page << " links to " << (*match)[1];
            }
        }
    }
}

}  // namespace
}  // namespace atelier
