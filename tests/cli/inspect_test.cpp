#include <nlohmann/json.hpp>

#include <algorithm>

#include "atelier/core/atomic_file.h"
#include "atelier/core/image_file.h"
#include "atelier/core/npz.h"
#include "cli/program.h"
#include "core/test_folder.h"

namespace atelier::cli {

namespace {

TEST(Inspect, counts_the_classes_that_occur_and_says_how_many_do_not) {
    const core::TestFolder folder;
    const std::vector<std::uint8_t> pixels(3 * 4);
    const std::vector<std::int64_t> labels{0, 1, 999'999};
    const std::string path = folder / "X.NPZ";
    core::write_npz(path,
                    {{"arr_0", core::DType::U8, {3, 2, 2, 1}, std::as_bytes(std::span(pixels))},
                     {"labels", core::DType::I64, {3}, std::as_bytes(std::span(labels))}});
    const auto about = nlohmann::json::parse(atelier({"inspect", path, "--json"}).out);
    EXPECT_EQ(about.at("kind"), "data set");
    EXPECT_EQ(about.at("histogram"), (nlohmann::json{{"0", 1}, {"1", 1}, {"999999", 1}}));
    EXPECT_EQ(about.at("classes_without_samples"), 999'997);
    const std::string text = atelier({"inspect", path}).out;
    EXPECT_LT(std::ranges::count(text, '\n'), 20);
    EXPECT_NE(atelier({"inspect", folder.path().string()}).error.find("looked for IDX files"),
              std::string::npos);
}

TEST(Inspect, shows_no_control_characters_of_other_peoples_files) {
    const core::TestFolder folder;
    const std::string path = folder / "a.png";
    core::write_png(path, {2, 2, 1, std::vector<std::uint8_t>(4)},
                    {{"prompt", "red \x1b[31m\nkind: model"}});
    const std::string text = atelier({"inspect", path}).out;
    EXPECT_EQ(text.find('\x1b'), std::string::npos) << text;
    EXPECT_EQ(text.find("\nkind: model"), std::string::npos) << text;
    EXPECT_NE(text.find("red \\u001b[31m"), std::string::npos) << text;

    const std::string set = folder / "set";
    for (const char* name : {"red\x1b[31m", "blue"}) {
        core::write_png(set + "/" + name + "/0.png", {2, 2, 1, std::vector<std::uint8_t>(4)});
    }
    const std::string classes = atelier({"inspect", set}).out;
    EXPECT_EQ(classes.find('\x1b'), std::string::npos) << classes;
    EXPECT_NE(classes.find("red\\x1b[31m: 1"), std::string::npos) << classes;
}

TEST(Inspect, measures_images_of_every_format_that_is_read) {
    const core::TestFolder folder;
    for (const char* name : {"a.png", "a.jpg", "a.webp"}) {
        const std::string path = folder / name;
        const core::Image image{2, 3, 3, std::vector<std::uint8_t>(18)};
        const auto bytes = path.ends_with("png")   ? core::encode_png(image)
                           : path.ends_with("jpg") ? core::encode_jpeg(image, 90)
                                                   : core::encode_webp(image, 90);
        core::write_text(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        const auto about = nlohmann::json::parse(atelier({"inspect", path, "--json"}).out);
        EXPECT_EQ(about.value("height", 0), 2) << name;
        EXPECT_EQ(about.value("width", 0), 3) << name;
    }
}

TEST(Tokenize, says_what_of_a_prompt_is_cut) {
    std::string text;
    for (int word = 0; word < 100; ++word) text += "red ";
    const std::string model = std::string(ATELIER_SOURCE_DIR) + "/models/captions";
    EXPECT_NE(atelier({"tokenize", model, text}).error.find("TEXT"), std::string::npos);
    EXPECT_EQ(atelier({"tokenize", model, "red"}).error, "");
}

}  // namespace

}  // namespace atelier::cli
