#include "atelier/data/captioned_images.h"

#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

TEST(Captioned, paths_require_captions_of_what_they_name) {
    EXPECT_FALSE(is_captioned("images.zip"));
    ASSERT_TRUE(is_captioned("captions:images.zip"));
    const DataRequest request =
        captions_request({.path = "captions:images.zip", .split = "test", .limit = 7});
    EXPECT_EQ(request.path, "images.zip");
    EXPECT_EQ(request.captions, Captions::required);
    EXPECT_EQ(request.split, "test");
    EXPECT_EQ(request.limit, 7);
}

TEST(Captioned, what_earlier_versions_composed_is_answered_by_how_to_make_it) {
    const TestFolder folder;
    const auto problem_of = [](const std::string& path) {
        return message_of([&] { open_dataset({.path = path, .split = "train", .limit = 0}); });
    };
    const std::string path = folder.path().string(),
                      made = "examples/garments/compose.py data/garments";
    EXPECT_FALSE(holds(problem_of("captions:" + path), made)) << "a folder of the user's own";
    EXPECT_TRUE(holds(problem_of("captions:amount:" + path),
                      made + " --classes, and name data/garments/classes/amount.zip"));
    EXPECT_FALSE(holds(problem_of("captions:shade:" + path), made));
    std::ofstream(folder.path() / "train-images-idx3-ubyte") << "";
    EXPECT_TRUE(
        holds(problem_of("captions:" + path), made + ", and name data/garments/images.zip"));
}

TEST(Captioned, a_folder_may_be_called_like_what_earlier_versions_composed) {
    const TestFolder folder;
    const auto here = std::filesystem::current_path();
    std::filesystem::current_path(folder.path());
    std::filesystem::create_directory("colour:chart");
    EXPECT_EQ(captions_request({.path = "captions:colour:chart"}).path, "colour:chart");
    std::filesystem::current_path(here);
}

}  // namespace
}  // namespace atelier::data
