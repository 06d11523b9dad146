#include <nlohmann/json.hpp>

#include <algorithm>

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

}  // namespace

}  // namespace atelier::cli
