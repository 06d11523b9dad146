#include "atelier/data/image_npz.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include "atelier/core/npz.h"
#include "core/test_folder.h"

namespace atelier::data {
namespace {

using core::DType;

std::vector<std::uint8_t> counted(std::size_t count) {
    std::vector<std::uint8_t> bytes(count);
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 % 251);
    return bytes;
}

class ImageNpz : public testing::TestWithParam<std::int64_t> {};

TEST_P(ImageNpz, images_and_classes_are_read_and_stay_when_the_file_is_closed) {
    constexpr std::int64_t count = 40, side = 80;
    const std::int64_t channels = GetParam();
    const core::TestFolder folder;
    const auto pixels = counted(static_cast<std::size_t>(count * side * side * channels));
    std::vector<std::int64_t> labels(count);
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int64_t>(i % 3);
    core::write_npz(
        folder / "x.npz",
        {{"arr_0", DType::U8, {count, side, side, channels}, std::as_bytes(std::span(pixels))},
         {"labels", DType::I64, {count}, std::as_bytes(std::span(labels))}});
    ::mallopt(M_PERTURB,
              85);  // overwrites freed bytes, so that a use after free is detected
    const auto data = open_dataset({.path = folder / "x.npz", .split = "train", .limit = 0});
    ::mallopt(M_PERTURB, 0);
    EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{channels, side, side}));
    EXPECT_EQ(data->labels(), labels);
    EXPECT_EQ(data->classes(), 3);
    const std::int64_t last[]{count - 1};
    const Tensor image = data->samples(last)[0];
    for (std::int64_t c = 0; c < channels; ++c) {
        for (const std::int64_t at : {std::int64_t{0}, side * side - 1}) {
            const auto level =
                pixels[static_cast<std::size_t>(((count - 1) * side * side + at) * channels + c)];
            EXPECT_NEAR(image[c][at / side][at % side].item<float>(), level / 127.5 - 1, 1e-5);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Channels, ImageNpz, testing::Values(1, 3));

TEST(ImageNpzFile, that_is_invalid_is_refused_by_name) {
    const core::TestFolder folder;
    const auto refused = [&](const std::vector<core::TensorBytes>& arrays) {
        core::write_npz(folder / "x.npz", arrays);
        return core::error_of(
            [&] { open_dataset({.path = folder / "x.npz", .split = "train", .limit = 0}); });
    };
    const auto pixels = counted(2 * 4 * 4 * 3);
    const auto bytes = std::as_bytes(std::span(pixels));
    const std::int64_t labels[]{0, -1};
    EXPECT_NE(refused({{"images", DType::U8, {2, 4, 4, 3}, bytes}}).find("\"arr_0\""),
              std::string::npos);
    EXPECT_NE(refused({{"arr_0", DType::U8, {2, 4, 12}, bytes}}).find("[2,4,12]"),
              std::string::npos);
    EXPECT_NE(refused({{"arr_0", DType::U8, {3, 4, 4, 2}, bytes}}).find("1 or 3 channels"),
              std::string::npos);
    EXPECT_NE(refused({{"arr_0", DType::U8, {2, 4, 4, 3}, bytes},
                       {"arr_1", DType::I64, {2}, std::as_bytes(std::span(labels))}})
                  .find("the label of row 1 is -1"),
              std::string::npos);
    EXPECT_NE(refused({{"arr_0", DType::U8, {2, 4, 4, 3}, bytes},
                       {"labels", DType::I64, {1}, std::as_bytes(std::span(labels).first(1))}})
                  .find("int64 [2]"),
              std::string::npos);
}

TEST(ImageNpzFile, has_no_classes_without_samples_unless_they_are_accepted) {
    const core::TestFolder folder;
    const auto pixels = counted(3 * 4 * 4 * 3);
    const auto write = [&](const std::vector<std::int64_t>& labels) {
        core::write_npz(folder / "x.npz",
                        {{"arr_0", DType::U8, {3, 4, 4, 3}, std::as_bytes(std::span(pixels))},
                         {"labels", DType::I64, {3}, std::as_bytes(std::span(labels))}});
    };
    const auto refused = [&](bool gaps) {
        return core::error_of([&] { open_dataset({.path = folder / "x.npz", .gaps = gaps}); });
    };
    write({0, 1, 999'999});
    EXPECT_NE(refused(false).find("x.npz: class 2 has no sample"), std::string::npos);
    EXPECT_EQ(open_dataset({.path = folder / "x.npz", .gaps = true})->classes(), 1'000'000);
    write({0, 1, 1'000'000});
    EXPECT_NE(refused(true).find("the label of row 2 is 1000000"), std::string::npos);
    write({0, -1, 2});
    EXPECT_NE(refused(true).find("the label of row 1 is -1"), std::string::npos);
}

TEST(ImageNpzFile, is_recognised_by_its_header) {
    const core::TestFolder folder;
    const auto is_one = [&](const core::Shape& shape, DType type) {
        const auto bytes = counted(*core::bytes_of(type, shape));
        core::write_npz(folder / "x.npz",
                        {{"arr_0", type, shape, std::as_bytes(std::span(bytes))}});
        return is_image_npz(folder / "x.npz");
    };
    EXPECT_TRUE(is_one({2, 4, 4, 3}, DType::U8));
    EXPECT_FALSE(is_one({2, 4, 4, 2}, DType::U8));
    EXPECT_FALSE(is_one({6, 2}, DType::F32));
    core::write_npz(folder / "y.npz", {{"mu", DType::F64, {0}, {}}});
    EXPECT_FALSE(is_image_npz(folder / "y.npz"));
    EXPECT_TRUE(is_image_npz(ATELIER_SOURCE_DIR "/tests/core/arrays/images_and_words.npz"));
}

TEST(ImageNpzFile, is_read_whatever_else_it_holds) {
    // Written by numpy: "arr_1" and another array are text, which is not read if there are
    // "labels".
    const auto data =
        open_dataset({.path = ATELIER_SOURCE_DIR "/tests/core/arrays/images_and_words.npz"});
    EXPECT_EQ(data->size(), 2);
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{1, 0}));
    EXPECT_EQ(data->spec().shape, (std::vector<std::int64_t>{1, 3, 4}));
}

}  // namespace
}  // namespace atelier::data
