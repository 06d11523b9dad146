#include <cstdlib>

#include "atelier/core/atomic_file.h"
#include "atelier/core/exif.h"
#include "atelier/core/image_codecs.h"
#include "atelier/core/image_file.h"
#include "atelier/core/json_file.h"
#include "core/test_folder.h"

/// Images of kinds that we do not write: written and read by Pillow (scripts/make_image_golden.py).
namespace atelier::core {
namespace {

const std::string images = ATELIER_SOURCE_DIR "/tests/core/images/";

TEST(OddImages, are_read_as_pillow_reads_them) {
    const nlohmann::json all = read_json(images + "odd.json");
    EXPECT_GE(all.size(), 20U);
    for (const auto& expected : all) {
        const std::string file = expected["file"];
        const Image image = read_image(images + file);
        EXPECT_EQ(image.height, expected["height"].get<int>()) << file;
        EXPECT_EQ(image.width, expected["width"].get<int>()) << file;
        ASSERT_EQ(image.channels, expected["channels"].get<int>()) << file;
        const auto pixels = expected["pixels"].get<std::vector<int>>();
        ASSERT_EQ(image.pixels.size(), pixels.size()) << file;
        int worst = 0;
        for (std::size_t i = 0; i < pixels.size(); ++i)
            worst = std::max(worst, std::abs(image.pixels[i] - pixels[i]));
        EXPECT_LE(worst, 1) << file;
    }
}

TEST(OddImages, are_noted) {
    const auto notes_of = [](const char* file, const DecodeOptions& options = {}) {
        DecodeNotes notes;
        read_image(images + file, options, &notes);
        return notes;
    };
    EXPECT_TRUE(notes_of("odd_cmyk_plain.jpg").cmyk);
    EXPECT_TRUE(notes_of("odd_exif6.webp").rotated);
    EXPECT_FALSE(notes_of("odd_exif1.jpg").rotated);
    EXPECT_TRUE(notes_of("odd_alpha.png").transparent);
    EXPECT_TRUE(notes_of("odd_palette_transparent.png").transparent);
    EXPECT_FALSE(notes_of("colour.jpg").transparent);
}

TEST(OddImages, are_blended_with_the_requested_background) {
    const std::vector<std::uint8_t> clear{9, 9, 9, 0, 9, 9, 9, 255, 200, 100, 0, 51};
    DecodeNotes notes;
    EXPECT_EQ(flatten_alpha(1, 3, 4, clear, {.background = {10, 20, 30}}, notes).pixels,
              (std::vector<std::uint8_t>{10, 20, 30, 9, 9, 9, 48, 36, 24}));
    const std::vector<std::uint8_t> grey{7, 0, 7, 255};
    EXPECT_EQ(flatten_alpha(1, 2, 2, grey, {.background = {0, 0, 0}}, notes).pixels,
              (std::vector<std::uint8_t>{0, 7}));
    const Image coloured = flatten_alpha(1, 2, 2, grey, {.background = {1, 2, 3}}, notes);
    EXPECT_EQ(coloured.channels, 3);
    EXPECT_EQ(coloured.pixels, (std::vector<std::uint8_t>{1, 2, 3, 7, 7, 7}));
}

TEST(OddImages, that_were_cut_off_or_changed_are_read_or_refused) {
    for (const char* file : {"odd_lossy.webp", "odd_alpha.webp", "odd_animated.webp",
                             "odd_exif6.webp", "odd_ycck.jpg", "odd_exif6.png", "odd_exif6.jpg"}) {
        const std::string whole = read_text(images + file);
        for (std::size_t i = 0; i < 2 * whole.size(); ++i) {
            std::string bad = i < whole.size() ? whole.substr(0, i) : whole;
            if (i >= whole.size()) bad[i - whole.size()] = '\xff';
            const auto bytes = std::as_bytes(std::span(bad));
            try {
                check_image_header(bytes, bytes.size(), "here");
                decode_image(bytes, "here", {.longest_side = 4096});
            } catch (const Error& error) {
                expect_contains(error.what(), "here");
            }
        }
    }
}

TEST(OddImages, that_are_something_else_are_named) {
    const auto message_for = [](const std::string& file) {
        return error_of([&] { decode_image(std::as_bytes(std::span(file)), "x"); });
    };
    expect_contains(message_for(""), "x: is empty");
    expect_contains(message_for("GIF89a"), "is a GIF");
    expect_contains(message_for("  <!doctype html>"), "web page");
    expect_contains(message_for(std::string("\0\0\0\x1c"
                                            "ftypavif",
                                            12)),
                    "an AVIF");
    expect_contains(message_for("version https://git-lfs.github.com/spec/v1"), "Git LFS");
    expect_contains(message_for("what?"), "neither a PNG, a JPEG nor a WebP");
}

/// A JPEG with the size in its header replaced.
std::string jpeg_of_size(std::string jpeg, int side) {
    std::size_t place = jpeg.find("\xff\xc0");
    if (place == jpeg.npos) place = jpeg.find("\xff\xc2");
    for (const int at : {5, 7}) {
        jpeg[place + static_cast<std::size_t>(at)] = static_cast<char>(side >> 8);
        jpeg[place + static_cast<std::size_t>(at) + 1] = static_cast<char>(side);
    }
    return jpeg;
}

TEST(OddImages,
     jpegs_that_claim_more_than_their_length_allows_are_refused_before_memory_is_allocated) {
    const std::string huge = jpeg_of_size(read_text(images + "colour.jpg"), 16000);
    const auto message = error_of([&] { decode_image(std::as_bytes(std::span(huge)), "x"); });
    expect_contains(message, "x: is too short for 16000 x 16000 pixels");
    EXPECT_EQ(
        error_of([&] { check_image_header(std::as_bytes(std::span(huge)), huge.size(), "x"); }),
        message);
    // The smallest possible JPEG of one colour: two bits per block.
    const std::vector<std::uint8_t> flat =
        encode_jpeg({2048, 2048, 1, std::vector<std::uint8_t>(2048 * 2048, 128)}, 90);
    EXPECT_EQ(decode_image(std::as_bytes(std::span(flat)), "flat").height, 2048);
}

TEST(OddImages, webp_streams_without_their_container_are_rejected) {
    constexpr std::size_t container = 20;  // RIFF, its size, WEBP, and the chunk's name and size
    for (const int quality : {90, 100}) {
        std::vector<std::uint8_t> file =
            encode_webp({64, 64, 3, std::vector<std::uint8_t>(64 * 64 * 3, 128)}, quality);
        DecodeNotes notes;
        EXPECT_EQ(decode_webp(file, "x", {}, notes).height, 64);
        const std::span bare = std::span(file).subspan(container);
        expect_contains(error_of([&] { decode_webp(bare, "x", {}, notes); }),
                        "x: is a broken WebP, or was cut off");
        expect_contains(error_of([&] { check_webp_header(bare, bare.size(), "x", {}); }),
                        "x: is a broken WebP, or was cut off");
    }
}

TEST(Exif, that_is_broken_or_says_nothing_leaves_images_as_they_are) {
    const auto orientation = [](std::string_view bytes) {
        return exif_orientation(
            {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
    };
    const std::string whole("Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 28);
    EXPECT_EQ(orientation(whole), 6);
    for (std::size_t length = 0; length < whole.size() - 2; ++length)
        EXPECT_EQ(orientation(whole.substr(0, length)), 1) << length;
    std::string far = whole;
    far.replace(10, 4, "\xff\xff\xff\xff");
    EXPECT_EQ(orientation(far), 1);
    std::string unknown = whole;
    unknown[24] = 9;
    EXPECT_EQ(orientation(unknown), 1);
}

TEST(Exif, orientations_are_undone) {
    // a b c
    // d e f
    const Image image{2, 3, 1, {'a', 'b', 'c', 'd', 'e', 'f'}};
    const std::vector<std::string> looks{"abcdef", "cbafed", "fedcba", "defabc",
                                         "adbecf", "daebfc", "fcebda", "cfbead"};
    for (int i = 1; i <= 8; ++i) {
        const Image rotated = apply_orientation(image, i);
        EXPECT_EQ(rotated.height, i < 5 ? 2 : 3);
        EXPECT_EQ(std::string(rotated.pixels.begin(), rotated.pixels.end()),
                  looks[static_cast<std::size_t>(i - 1)])
            << i;
    }
}

}  // namespace
}  // namespace atelier::core
