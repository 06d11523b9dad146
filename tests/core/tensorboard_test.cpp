#include "atelier/core/tensorboard.h"

#include "core/test_folder.h"

#include <cstring>

#include "atelier/core/atomic_file.h"

namespace atelier::core {

namespace {

// The records of a TFRecord file, their checksums verified.
std::vector<std::string> records_of(std::string_view file) {
    const auto number = [&](auto value) {
        std::memcpy(&value, file.data(), sizeof value);
        file.remove_prefix(sizeof value);
        return value;
    };
    const auto masked = [](std::string_view bytes) {
        const std::uint32_t crc = crc32c(bytes);
        return (crc >> 15 | crc << 17) + 0xa282ead8U;
    };
    std::vector<std::string> records;
    while (!file.empty()) {
        const std::string_view length_bytes = file.substr(0, 8);
        const auto length = number(std::uint64_t{});
        EXPECT_EQ(number(std::uint32_t{}), masked(length_bytes));
        records.emplace_back(file.substr(0, length));
        file.remove_prefix(length);
        EXPECT_EQ(number(std::uint32_t{}), masked(records.back()));
    }
    return records;
}

}  // namespace

TEST(TensorBoard, crc32c_gives_the_published_vectors) {
    EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
    EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);
    EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43U);
    EXPECT_EQ(crc32c(""), 0U);
}

TEST(TensorBoard, a_file_holds_the_version_and_then_the_scalars) {
    const TestFolder folder;
    TensorBoardFile file(folder / "run", 5);
    file.add(300, {{"loss", 0.5}, {"lr", 1}});
    // Still open: every add is flushed, so that a viewer sees it immediately.
    const auto path = std::filesystem::directory_iterator(folder / "run")->path();
    EXPECT_TRUE(path.filename().string().starts_with("events.out.tfevents."));
    EXPECT_TRUE(path.filename().string().ends_with(".atelier.5"));
    const auto records = records_of(read_text(path));
    ASSERT_EQ(records.size(), 2U);
    // Field 1 (wall time) takes 9 bytes; what follows has no time in it.
    EXPECT_EQ(records[0].substr(9),
              "\x1a\x0d"
              "brain.Event:2");
    EXPECT_EQ(records[1].substr(9), std::string("\x10\xac\x02"  // step 300
                                                "\x2a\x18"      // summary
                                                "\x0a\x0b\x0a\x04"
                                                "loss\x15\0\0\0\x3f"  // value: tag, 0.5f
                                                "\x0a\x09\x0a\x02"
                                                "lr\x15\0\0\x80\x3f",
                                                29));
}

TEST(TensorBoard, a_folder_that_cannot_be_written_is_an_error) {
    expect_contains(error_of([] { TensorBoardFile("/proc/nowhere", 0); }), "/proc/nowhere");
}

}  // namespace atelier::core
