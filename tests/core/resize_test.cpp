#include "atelier/core/resize.h"

#include <gtest/gtest.h>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"

namespace atelier::core {
namespace {

constexpr ResizeFilter all_filters[]{ResizeFilter::lanczos, ResizeFilter::bicubic,
                                     ResizeFilter::triangle};

Image grey(int height, int width, std::vector<std::uint8_t> pixels) {
    return {height, width, 1, std::move(pixels)};
}

/// As in scripts/make_resize_golden.py.
Image pattern(int height, int width, int channels) {
    Image image{height, width, channels, {}};
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            for (int c = 0; c < channels; ++c)
                image.pixels.push_back(
                    static_cast<std::uint8_t>((37 * y + 91 * x + 11 * x * y + 53 * c) % 256));
        }
    }
    return image;
}

TEST(Resized, matches_pillow_exactly) {
    const nlohmann::json cases = read_json(ATELIER_SOURCE_DIR "/tests/golden/resize.json");
    EXPECT_GE(cases.size(), 33U);
    for (const auto& one : cases) {
        const Image from = pattern(one["from"][0], one["from"][1], one["from"][2]);
        const Image made = resized(from, one["to"][0], one["to"][1],
                                   resize_filter(one["filter"].get<std::string>()));
        EXPECT_EQ(made.height, one["to"][0].get<int>());
        EXPECT_EQ(made.width, one["to"][1].get<int>());
        EXPECT_EQ(made.pixels, one["pixels"].get<std::vector<std::uint8_t>>())
            << one["from"] << one["to"] << one["filter"];
    }
}

TEST(Resized, to_its_own_size_changes_nothing) {
    const Image image = pattern(5, 7, 3);
    for (const ResizeFilter filter : all_filters)
        EXPECT_EQ(resized(image, 5, 7, filter).pixels, image.pixels);
}

TEST(CentreCrop, of_one_colour_stays_so_at_every_size) {
    const Image image{7, 11, 3, std::vector<std::uint8_t>(7 * 11 * 3, 123)};
    for (const ResizeFilter filter : all_filters) {
        for (const int side : {1, 3, 7, 20}) {
            EXPECT_EQ(centre_crop(image, side, filter).pixels,
                      std::vector<std::uint8_t>(static_cast<std::size_t>(side * side * 3), 123))
                << side;
            EXPECT_EQ(padded_square(image, side, filter, {123, 123, 123}).pixels,
                      std::vector<std::uint8_t>(static_cast<std::size_t>(side * side * 3), 123))
                << side;
        }
    }
}

TEST(CentreCrop, takes_the_middle_of_the_longer_side) {
    for (const ResizeFilter filter : all_filters) {
        EXPECT_EQ(centre_crop(grey(1, 3, {10, 20, 30}), 1, filter).pixels,
                  std::vector<std::uint8_t>{20});
        EXPECT_EQ(centre_crop(grey(3, 1, {10, 20, 30}), 1, filter).pixels,
                  std::vector<std::uint8_t>{20});
        EXPECT_EQ(centre_crop(grey(2, 4, {9, 1, 2, 9, 9, 3, 4, 9}), 2, filter).pixels,
                  (std::vector<std::uint8_t>{1, 2, 3, 4}));
    }
}

TEST(CentreCrop, shrinking_a_checkerboard_gives_grey_and_no_pattern) {
    std::vector<std::uint8_t> pixels;
    for (int i = 0; i < 64 * 64; ++i) pixels.push_back((i / 64 + i) % 2 == 0 ? 0 : 255);
    for (const ResizeFilter filter : all_filters) {
        for (const std::uint8_t pixel : centre_crop(grey(64, 64, pixels), 8, filter).pixels)
            EXPECT_NEAR(pixel, 127.5, 2);
    }
}

TEST(PaddedSquare, holds_all_of_the_image_between_stripes_of_the_background) {
    const Image wide = grey(1, 3, {10, 20, 30});
    EXPECT_EQ(padded_square(wide, 3, ResizeFilter::lanczos, white).pixels,
              (std::vector<std::uint8_t>{255, 255, 255, 10, 20, 30, 255, 255, 255}));
    const Image tall{2, 1, 3, {1, 2, 3, 4, 5, 6}};
    EXPECT_EQ(padded_square(tall, 2, ResizeFilter::triangle, {7, 8, 9}).pixels,
              (std::vector<std::uint8_t>{1, 2, 3, 7, 8, 9, 4, 5, 6, 7, 8, 9}));
    EXPECT_EQ(padded_square(Image{1, 1000, 1, std::vector<std::uint8_t>(1000, 50)}, 4,
                            ResizeFilter::bicubic, {0, 0, 0})
                  .pixels,
              (std::vector<std::uint8_t>{0, 0, 0, 0, 50, 50, 50, 50, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(ResizeFilters, have_names) {
    for (const ResizeFilter filter : all_filters) EXPECT_EQ(resize_filter(name_of(filter)), filter);
    EXPECT_THROW(resize_filter("nearest"), UsageError);
}

TEST(WithChannels, spreads_grey_and_weighs_colours) {
    EXPECT_EQ(with_channels(grey(1, 2, {7, 9}), 3).pixels,
              (std::vector<std::uint8_t>{7, 7, 7, 9, 9, 9}));
    EXPECT_EQ(with_channels({1, 1, 3, {255, 0, 0}}, 1).pixels, std::vector<std::uint8_t>{76});
    EXPECT_EQ(with_channels(grey(1, 2, {7, 9}), 1).pixels, (std::vector<std::uint8_t>{7, 9}));
}

}  // namespace
}  // namespace atelier::core
