#include "atelier/core/resize.h"

#include <gtest/gtest.h>

namespace atelier::core {
namespace {

Image grey(int height, int width, std::vector<std::uint8_t> pixels) { return {height, width, 1, std::move(pixels)}; }

TEST(Square, of_one_colour_stays_so_at_every_size) {
    const Image image{7, 11, 3, std::vector<std::uint8_t>(7 * 11 * 3, 123)};
    for (const int side : {1, 3, 7, 20}) {
        const Image made = square(image, side);
        EXPECT_EQ(made.pixels, std::vector<std::uint8_t>(static_cast<std::size_t>(side * side * 3), 123)) << side;
    }
}

TEST(Square, takes_the_middle_of_the_longer_side) {
    EXPECT_EQ(square(grey(1, 3, {10, 20, 30}), 1).pixels, std::vector<std::uint8_t>{20});
    EXPECT_EQ(square(grey(3, 1, {10, 20, 30}), 1).pixels, std::vector<std::uint8_t>{20});
    EXPECT_EQ(square(grey(2, 4, {9, 1, 2, 9, 9, 3, 4, 9}), 2).pixels, (std::vector<std::uint8_t>{1, 2, 3, 4}));
}

TEST(Square, agrees_with_pillow) {
    // Image.fromarray(a).resize((n, n), Image.BILINEAR) of a[y][x] = (37 y + 91 x + 11 x y) % 256, 6x6; Pillow rounds in between, hence the 1.
    std::vector<std::uint8_t> pixels;
    for (int y = 0; y < 6; ++y) {
        for (int x = 0; x < 6; ++x) pixels.push_back(static_cast<std::uint8_t>((37 * y + 91 * x + 11 * x * y) % 256));
    }
    const std::vector<std::uint8_t> by_pillow_3{92, 128, 116, 131, 133, 120, 127, 125, 103};
    const std::vector<std::uint8_t> by_pillow_4{49, 154, 93, 138, 107, 139, 119, 97, 135, 136, 138, 139, 129, 139, 92, 95};
    const std::vector<std::uint8_t> by_pillow_8{0, 57, 125, 161, 38, 74, 142, 199, 23, 85, 158, 199, 81, 122, 135, 97, 51, 118, 161, 161, 120, 120, 103, 70, 79, 151, 140, 66, 152, 78, 67, 139, 106, 184, 179, 111, 203, 135, 131, 208, 134, 116, 119, 137, 115, 133, 135, 117, 162, 89, 98, 170, 82, 94, 103, 90, 185, 116, 130, 207, 125, 42, 56, 147};
    for (const auto& [side, expected] : {std::pair{3, by_pillow_3}, {4, by_pillow_4}, {8, by_pillow_8}}) {
        const Image made = square(grey(6, 6, pixels), side);
        for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(made.pixels[i], expected[i], 1) << side << " " << i;
    }
}

TEST(Square, shrinking_a_checkerboard_gives_grey_and_no_pattern) {
    std::vector<std::uint8_t> pixels;
    for (int i = 0; i < 64 * 64; ++i) pixels.push_back((i / 64 + i) % 2 == 0 ? 0 : 255);
    for (const std::uint8_t pixel : square(grey(64, 64, pixels), 8).pixels) EXPECT_NEAR(pixel, 127.5, 2);
}

TEST(WithChannels, spreads_grey_and_weighs_colours) {
    EXPECT_EQ(with_channels(grey(1, 2, {7, 9}), 3).pixels, (std::vector<std::uint8_t>{7, 7, 7, 9, 9, 9}));
    EXPECT_EQ(with_channels({1, 1, 3, {255, 0, 0}}, 1).pixels, std::vector<std::uint8_t>{76});
    EXPECT_EQ(with_channels(grey(1, 2, {7, 9}), 1).pixels, (std::vector<std::uint8_t>{7, 9}));
}

}  // namespace
}  // namespace atelier::core
