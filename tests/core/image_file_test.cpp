#include "atelier/core/image_file.h"

#include "core/test_folder.h"

#include <png.h>

#include <fstream>
#include <string_view>

#include "atelier/core/atomic_file.h"
#include "atelier/core/image_codecs.h"
#include "atelier/core/random_streams.h"

namespace atelier::core {

namespace {

Image noise(int height, int width, int channels) {
    Image image{height, width, channels, {}};
    RandomStream random(1, "pixels");
    for (int i = 0; i < height * width * channels; ++i)
        image.pixels.push_back(static_cast<std::uint8_t>(random.below(256)));
    return image;
}

std::string text_of(const std::vector<std::uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

// PNGs of kinds that encode_png does not write, by libpng's simplified interface.
std::string simplified_png(png_uint_32 format, const void* pixels, const void* colours,
                           png_uint_32 width, png_uint_32 count) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = width;
    image.height = 1;
    image.format = format;
    image.colormap_entries = count;
    png_alloc_size_t size = 0;
    png_image_write_to_memory(&image, nullptr, &size, 0, pixels, 0, colours);
    std::string out(size, '\0');
    png_image_write_to_memory(&image, out.data(), &size, 0, pixels, 0, colours);
    out.resize(size);
    return out;
}

class ImageFile : public ::testing::Test {
protected:
    Image read(const std::string& content) {
        write_text(path(), content);
        return read_image(path());
    }

    std::string refusal(const std::string& content) {
        const std::string message = error_of([&] { read(content); });
        expect_contains(message, path().string());
        return message;
    }

    std::filesystem::path path() const { return folder_ / "image"; }
    TestFolder folder_;
};

}  // namespace

/// The type and the remaining content of the chunk that begins with `keyword`; checksums are left
/// to libpng.
std::pair<std::string, std::string> chunk_of(const std::string& png, const std::string& keyword) {
    for (std::size_t at = 8; at + 12 <= png.size();) {
        const auto byte = [&](std::size_t i) {
            return static_cast<std::size_t>(static_cast<unsigned char>(png[at + i]));
        };
        const std::size_t length = byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
        const std::string type = png.substr(at + 4, 4), content = png.substr(at + 8, length);
        if (content.starts_with(keyword + '\0')) return {type, content.substr(keyword.size() + 1)};
        at += 12 + length;
    }
    return {};
}

TEST_F(ImageFile, texts_beyond_ascii_are_utf8_in_an_itxt_chunk) {
    using namespace std::string_literals;
    const std::string prompt = "\u00fcn\u00ef \U0001fa70 sneaker", zero = "a\0b"s;
    const std::map<std::string, std::string> text{{"plain", "a\nb"},
                                                  {"prompt", prompt},
                                                  {"nul", zero},
                                                  {"tab", "a\tb\r\x7f"},
                                                  {"latin", "caf\xe9"}};
    const std::string png = text_of(encode_png(noise(4, 4, 3), text));
    EXPECT_EQ(chunk_of(png, "plain"), std::pair("tEXt"s, "a\nb"s));
    EXPECT_EQ(chunk_of(png, "prompt"), std::pair("iTXt"s, "\0\0\0\0"s + prompt))
        << "not compressed, no language, no translated keyword";
    EXPECT_EQ(chunk_of(png, "nul"), std::pair("iTXt"s, "\0\0\0\0a\u2400b"s))
        << "whole, without what no PNG may hold";
    core::write_text(path(), png);
    auto expected = text;
    expected["nul"] = "a\u2400b";
    expected["latin"] = "caf\u00e9";
    EXPECT_EQ(read_png_text(path()), expected);
}

TEST_F(ImageFile, png_pixels_and_texts_survive) {
    for (const int channels : {1, 3}) {
        const Image image = noise(13, 17, channels);
        write_png(path(), image, {{"parameters", "seed 3"}, {"Software", "atelier\xe4"}});
        const Image read = read_image(path());
        EXPECT_EQ(read.height, 13);
        EXPECT_EQ(read.width, 17);
        EXPECT_EQ(read.channels, channels);
        EXPECT_EQ(read.pixels, image.pixels);
        EXPECT_EQ(read_png_text(path()),
                  (std::map<std::string, std::string>{{"parameters", "seed 3"},
                                                      {"Software", "atelier\u00e4"}}));
    }
}

TEST_F(ImageFile, small_images_are_the_same_stored_or_compressed) {
    for (const int side : {1, 28, 45, 46}) {
        Image image = noise(side, side, 1);
        for (std::uint8_t& pixel : image.pixels) pixel /= 128;
        const auto quick = encode_png(image), smallest = encode_png(image, {}, PngSize::smallest);
        EXPECT_EQ(decode_image(std::as_bytes(std::span(quick)), "quick").pixels, image.pixels)
            << side;
        EXPECT_EQ(decode_image(std::as_bytes(std::span(smallest)), "smallest").pixels, image.pixels)
            << side;
        EXPECT_EQ(quick == smallest, side == 46) << side;
    }
}

TEST_F(ImageFile, equal_images_give_equal_bytes) {
    EXPECT_EQ(encode_png(noise(5, 6, 3), {{"a", "b"}}), encode_png(noise(5, 6, 3), {{"a", "b"}}));
}

TEST_F(ImageFile, impossible_images_are_refused) {
    error_of([] { encode_png({2, 2, 2, std::vector<std::uint8_t>(8)}); });
    error_of([] { encode_png({2, 2, 1, std::vector<std::uint8_t>(3)}); });
    error_of([] { encode_png({0, 2, 1, {}}); });
    error_of([] { encode_png(noise(2, 2, 1), {{"", "x"}}); });
    error_of([] { encode_png(noise(2, 2, 1), {{std::string(80, 'k'), "x"}}); });
}

TEST_F(ImageFile, transparency_shows_white) {
    const std::uint8_t rgba[] = {10, 20, 30, 255, 40, 50, 60, 51};
    const Image colour = read(simplified_png(PNG_FORMAT_RGBA, rgba, nullptr, 2, 0));
    EXPECT_EQ(colour.channels, 3);
    EXPECT_EQ(colour.pixels, (std::vector<std::uint8_t>{10, 20, 30, 212, 214, 216}));
    const std::uint8_t grey_alpha[] = {10, 255, 40, 0};
    const Image grey = read(simplified_png(PNG_FORMAT_GA, grey_alpha, nullptr, 2, 0));
    EXPECT_EQ(grey.channels, 1);
    EXPECT_EQ(grey.pixels, (std::vector<std::uint8_t>{10, 255}));
}

TEST_F(ImageFile, palettes_are_expanded) {
    const std::uint8_t colours[] = {1, 2, 3, 4, 5, 6};
    const std::uint8_t indices[] = {1, 0, 1};
    const Image image = read(simplified_png(PNG_FORMAT_RGB_COLORMAP, indices, colours, 3, 2));
    EXPECT_EQ(image.channels, 3);
    EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{4, 5, 6, 1, 2, 3, 4, 5, 6}));
}

TEST_F(ImageFile, sixteen_bits_are_reduced_to_eight) {
    const std::uint16_t linear[] = {0, 32768, 65535};
    const Image image = read(simplified_png(PNG_FORMAT_LINEAR_Y, linear, nullptr, 3, 0));
    EXPECT_EQ(image.channels, 1);
    EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{0, 128, 255}));
}

TEST_F(ImageFile, jpegs_are_read) {
    const Image colour = read_image(ATELIER_SOURCE_DIR "/tests/core/images/colour.jpg");
    EXPECT_EQ(colour.channels, 3);
    EXPECT_EQ(colour.width, 16);
    EXPECT_EQ(colour.height, 8);
    EXPECT_NEAR(colour.pixels[0], 200, 6);
    EXPECT_NEAR(colour.pixels[1], 100, 6);
    EXPECT_NEAR(colour.pixels[2], 50, 6);
    const Image grey = read_image(ATELIER_SOURCE_DIR "/tests/core/images/grey.jpg");
    EXPECT_EQ(grey.channels, 1);
    EXPECT_NEAR(grey.pixels[5], 77, 3);
    EXPECT_EQ(read_image(ATELIER_SOURCE_DIR "/tests/core/images/cmyk.jpg").channels, 3);
}

TEST_F(ImageFile, what_is_not_an_image_is_refused) {
    expect_contains(refusal(""), "is empty");
    expect_contains(refusal("GIF89a"), "is a GIF");
    expect_contains(refusal("\xff\xd8\xff"), "broken JPEG");
    expect_contains(refusal("\x89PNG\r\n\x1a\n"), "broken PNG");
    expect_contains(error_of([&] { read_png_text(path()); }), "broken PNG");
}

TEST_F(ImageFile, files_that_were_cut_off_are_refused) {
    const std::string png = text_of(encode_png(noise(20, 20, 3)));
    for (std::size_t length = 8; length < png.size() - 20; length += 37)
        refusal(png.substr(0, length));
    const std::string jpeg = read_text(ATELIER_SOURCE_DIR "/tests/core/images/colour.jpg");
    for (std::size_t length = 3; length + 2 < jpeg.size(); length += 23)
        refusal(jpeg.substr(0, length));
}

TEST_F(ImageFile, damaged_files_are_read_or_refused) {
    const std::string png = text_of(encode_png(noise(6, 6, 3), {{"key", "value"}}));
    const std::string jpeg = read_text(ATELIER_SOURCE_DIR "/tests/core/images/colour.jpg");
    RandomStream random(1, "damage");
    for (int i = 0; i < 400; ++i) {
        std::string damaged = i % 2 == 0 ? png : jpeg;
        damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
        std::ofstream(path(), std::ios::binary) << damaged;
        try {
            read_image(path());
            if (i % 2 == 0) read_png_text(path());
        } catch (const Error& error) {
            expect_contains(error.what(), path().string());
        }
    }
}

TEST_F(ImageFile, huge_sizes_are_refused_before_memory_is_allocated) {
    // The checksum of the header must be right for the size to be checked; zlib's CRC-32 is the one
    // of PNG.
    const auto resized = [](std::uint32_t side) {
        std::string png = text_of(encode_png(noise(1, 1, 3)));
        for (int i = 0; i < 4; ++i)
            png[16 + i] = png[20 + i] = static_cast<char>(side >> (24 - 8 * i));
        std::uint32_t crc = ~0U;
        for (const unsigned char c : std::string_view(png).substr(12, 17)) {
            crc ^= c;
            for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0U);
        }
        for (int i = 0; i < 4; ++i) png[29 + i] = static_cast<char>(~crc >> (24 - 8 * i));
        return png;
    };
    expect_contains(refusal(resized(100'000)), "at most 16384 per side");
    expect_contains(refusal(resized(16'000)), "too short for 16000 x 16000 pixels");
}

TEST(Grid, lays_images_out_in_rows_with_gaps) {
    const auto flat = [](std::uint8_t value) { return Image{1, 2, 1, {value, value}}; };
    const Image sheet = grid({flat(1), flat(2), flat(3)}, 2, 1, 1);
    EXPECT_EQ(sheet.height, 3);
    EXPECT_EQ(sheet.width, 5);
    EXPECT_EQ(sheet.pixels, (std::vector<std::uint8_t>{1, 1, 128, 2, 2, 128, 128, 128, 128, 128, 3,
                                                       3, 128, 128, 128}));
}

TEST(Grid, enlarges_every_pixel) {
    const Image sheet = grid({Image{1, 2, 1, {7, 9}}}, 5, 2, 2);
    EXPECT_EQ(sheet.height, 2);
    EXPECT_EQ(sheet.width, 4);
    EXPECT_EQ(sheet.pixels, (std::vector<std::uint8_t>{7, 7, 9, 9, 7, 7, 9, 9}));
}

TEST(Grid, refuses_images_of_different_sizes) {
    error_of([] { grid({noise(2, 2, 1), noise(2, 3, 1)}, 2); });
    error_of([] { grid({}, 2); });
}

}  // namespace atelier::core
