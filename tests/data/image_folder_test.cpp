#include "atelier/data/image_folder.h"

#include "atelier/core/image_file.h"
#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

core::Image test_image(std::uint64_t seed, int channels = 3, int height = 4, int width = 5) {
    return {height, width, channels,
            random_bytes(static_cast<std::size_t>(height * width * channels), seed)};
}

TEST(image_folder, sub_folders_are_classes_in_the_order_of_their_names) {
    const TestFolder folder;
    core::write_png(folder / "b/2.png", test_image(1));
    core::write_png(folder / "b/1.PNG", test_image(2));
    core::write_png(folder / "a/z.png", test_image(3));
    core::write_png(folder / ".hidden/x.png", test_image(4));
    write_bytes(folder / "a/notes.txt", {1});
    write_bytes(folder / "a/.x.png", {1});
    const auto data = open_dataset({folder.path()});
    EXPECT_EQ(data->spec().class_names, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{0, 1, 1}));
    EXPECT_EQ(data->classes(), 2);
    EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{3, 4, 5}));
    const Tensor user = data::to_user_space(data->spec(), data->samples(all_of(*data)));
    for (const auto& [row, seed] : {std::pair{0, 3}, std::pair{1, 2}, std::pair{2, 1}}) {
        EXPECT_EQ(data::image_of(user[row]).pixels,
                  test_image(static_cast<std::uint64_t>(seed)).pixels);
    }
}

TEST(image_folder, images_without_sub_folders_are_unlabelled) {
    const TestFolder folder;
    core::write_png(folder / "1.png", test_image(1, 1));
    core::write_png(folder / "2.png", test_image(2, 1));
    std::filesystem::create_directory(folder / "empty");
    const auto data = open_dataset({folder.path()});
    EXPECT_EQ(data->classes(), 0);
    EXPECT_TRUE(data->labels().empty());
    EXPECT_TRUE(data->spec().class_names.empty());
    EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{1, 4, 5}));
    EXPECT_EQ(prior_of(*data).weights, (std::vector<double>{1}));
    EXPECT_EQ(indices_of(*data, std::vector<std::int64_t>{0}), (std::vector<std::int64_t>{0, 1}));
}

TEST(image_folder, train_and_test_are_splits_with_the_classes_of_train) {
    const TestFolder folder;
    core::write_png(folder / "train/a/1.png", test_image(1));
    core::write_png(folder / "train/b/1.png", test_image(2));
    core::write_png(folder / "test/b/1.png", test_image(3));
    EXPECT_EQ(open_dataset({folder.path()})->size(), 2);
    const auto test = open_dataset({folder.path(), "test"});
    EXPECT_EQ(test->classes(), 2);
    EXPECT_EQ(test->labels(), (std::vector<std::int64_t>{1}));
    core::write_png(folder / "test/c/1.png", test_image(4));
    EXPECT_TRUE(holds(message_of([&] { open_dataset({folder.path(), "test"}); }),
                      "test/c: is not a class"));
}

TEST(image_folder, data_without_splits_is_the_same_for_both) {
    const TestFolder folder;
    core::write_png(folder / "a/1.png", test_image(1));
    EXPECT_EQ(open_dataset({folder.path(), "test"})->hash(),
              open_dataset({folder.path(), "train"})->hash());
}

TEST(image_folder, grey_among_colour_becomes_colour) {
    const TestFolder folder;
    core::write_png(folder / "a/1.png", test_image(1, 1));
    core::write_png(folder / "a/2.png", test_image(2, 3));
    const Tensor samples = open_dataset({folder.path()})->samples(std::vector<std::int64_t>{0});
    EXPECT_EQ(samples.sizes(), at::IntArrayRef({1, 3, 4, 5}));
    EXPECT_TRUE(at::equal(samples.select(1, 0), samples.select(1, 2)));
}

TEST(image_folder, an_image_of_another_size_or_a_broken_one_is_named) {
    const TestFolder folder;
    core::write_png(folder / "a/1.png", test_image(1));
    core::write_png(folder / "b/odd.png", test_image(2, 3, 5, 4));
    const std::string message = message_of([&] { open_dataset({folder.path()}); });
    EXPECT_TRUE(holds(message, "b/odd.png: is 4x5 pixels")) << message;
    write_bytes(folder / "b/odd.png", random_bytes(100));
    EXPECT_TRUE(holds(message_of([&] { open_dataset({folder.path()}); }), "b/odd.png"));
}

TEST(image_folder, an_empty_class_or_images_on_two_levels_are_errors) {
    const TestFolder folder;
    core::write_png(folder / "a/1.png", test_image(1));
    std::filesystem::create_directory(folder / "b");
    EXPECT_TRUE(holds(message_of([&] { open_dataset({folder.path()}); }), "b: holds no .png"));
    core::write_png(folder / "1.png", test_image(2));
    EXPECT_TRUE(holds(message_of([&] { open_dataset({folder.path()}); }),
                      "both in the folder and in \"a\""));
}

TEST(image_folder, a_folder_without_data_says_what_was_looked_for) {
    const TestFolder folder;
    const std::string message = message_of([&] { open_dataset({folder.path()}); });
    EXPECT_TRUE(holds(message, "train-images-idx3-ubyte")) << message;
}

}  // namespace
}  // namespace atelier::data
