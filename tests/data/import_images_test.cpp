#include "atelier/data/import_images.h"

#include "atelier/core/resize.h"
#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

namespace fs = std::filesystem;

/// Two classes of colours, of several sizes, one of them grey.
void write_pictures(const fs::path& folder) {
    for (int i = 0; i < 6; ++i) {
        core::Image image{10 + i, 20 - i, i == 4 ? 1 : 3, {}};
        image.pixels.assign(static_cast<std::size_t>(image.height * image.width * image.channels), static_cast<std::uint8_t>(40 * i));
        core::write_png(folder / (i % 2 == 0 ? "cats" : "dogs") / (std::to_string(i) + ".png"), image);
    }
}

TEST(ImportImages, of_a_folder_become_squares_with_the_labels_of_their_folders) {
    const TemporaryFolder folder;
    write_pictures(folder / "in");
    std::int64_t told = 0;
    import_images(images_at(folder / "in"), folder / "out.zip", {.side = 8}, [&](std::int64_t done) { told = done; });
    EXPECT_EQ(told, 6);
    const auto data = open_dataset({.path = folder / "out.zip"});
    EXPECT_EQ(data->form().shape, (std::vector<std::int64_t>{3, 8, 8}));
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{0, 0, 0, 1, 1, 1}));
    EXPECT_EQ(data->form().class_names, (std::vector<std::string>{"cats", "dogs"}));
    const std::int64_t second[]{1};
    EXPECT_NEAR(data->samples(second).mean().item<double>(), 80 / 127.5 - 1, 1e-6);
    EXPECT_FALSE(fs::exists(folder / "out.zip.part"));
}

TEST(ImportImages, go_through_a_zip_again_and_may_become_grey) {
    const TemporaryFolder folder;
    write_pictures(folder / "in");
    import_images(images_at(folder / "in"), folder / "a.zip", {.side = 8}, [](std::int64_t) {});
    import_images(images_at(folder / "a.zip"), folder / "b.zip", {.side = 4, .channels = 1}, [](std::int64_t) {});
    const auto data = open_dataset({.path = folder / "b.zip"});
    EXPECT_EQ(data->form().shape, (std::vector<std::int64_t>{1, 4, 4}));
    EXPECT_EQ(data->classes(), 2);
}

TEST(ImportImages, interrupted_ones_go_on_and_end_with_the_same_bytes) {
    const TemporaryFolder folder;
    write_pictures(folder / "in");
    EncodedImages images = images_at(folder / "in");
    import_images(images, folder / "whole.zip", {.side = 8}, [](std::int64_t) {});
    EncodedImages broken = images;
    broken.read = [&](std::int64_t i) {
        if (i == 4) core::fail("the disk is gone");
        return images.read(i);
    };
    EXPECT_THROW(import_images(broken, folder / "a.zip", {.side = 8}, [](std::int64_t) {}), core::Error);
    EXPECT_FALSE(fs::exists(folder / "a.zip"));
    import_images(images, folder / "a.zip", {.side = 8}, [](std::int64_t) {});
    EXPECT_EQ(message_of([&] { import_images(images, folder / "a.zip", {.side = 8}, [](std::int64_t) {}); }).find("exists already") != std::string::npos, true);
    std::ifstream a(folder / "a.zip", std::ios::binary), b(folder / "whole.zip", std::ios::binary);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(a), {}), std::string(std::istreambuf_iterator<char>(b), {}));
}

}  // namespace
}  // namespace atelier::data
