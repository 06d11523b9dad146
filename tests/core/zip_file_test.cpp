#include "atelier/core/zip_file.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>

#include "core/archives.h"
#include "core/test_folder.h"

namespace atelier::core {
namespace {

std::string text_of(const std::vector<std::byte>& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class Zips : public testing::Test {
protected:
    std::filesystem::path written(const std::string& bytes) {
        std::ofstream(folder_ / "x.zip", std::ios::binary) << bytes;
        return folder_ / "x.zip";
    }
    std::string refusal(const std::string& bytes) {
        return error_of([&] {
            ZipFile zip(written(bytes));
            for (const auto& entry : zip.entries()) zip.read(entry, 1 << 20);
        });
    }

    TestFolder folder_;
};

TEST_F(Zips, stored_and_deflated_entries_are_found_by_name) {
    const std::string long_text(50'000, 'a');
    const ZipFile zip(written(zip_of({{.name = "b/2.txt", .bytes = "stored"},
                                      {.name = "a.txt", .bytes = long_text, .deflated = true},
                                      {.name = "b/", .bytes = ""}})));
    ASSERT_EQ(zip.entries().size(), 2U);
    EXPECT_EQ(text_of(zip.read(*zip.find("b/2.txt"), 100)), "stored");
    EXPECT_EQ(zip.stored(*zip.find("b/2.txt")).size(), 6U);
    EXPECT_EQ(text_of(zip.read(*zip.find("a.txt"), 50'000)), long_text);
    EXPECT_EQ(zip.find("c"), nullptr);
    expect_contains(error_of([&] { zip.stored(*zip.find("a.txt")); }), "compressed");
    expect_contains(error_of([&] { zip.read(*zip.find("a.txt"), 49'999); }), "more than the 49999");
}

TEST_F(Zips, that_claim_impossible_sizes_are_refused_before_memory_is_allocated) {
    expect_contains(
        refusal(
            zip_of({{.name = "bomb", .bytes = "abc", .deflated = true, .claimed = 0xfffffffe}})),
        "impossible");
    expect_contains(refusal(zip_of({{.name = "long", .bytes = "abc", .claimed = 9}})),
                    "impossible");
    expect_contains(
        refusal(zip_of({{.name = "longer", .bytes = "abc", .deflated = true, .claimed = 400}})),
        "does not unpack");
}

TEST_F(Zips, with_names_that_leave_the_archive_are_refused) {
    expect_contains(refusal(zip_of({{.name = "../evil.png", .bytes = "x"}})), "outside");
    expect_contains(refusal(zip_of({{.name = "/etc/passwd", .bytes = "x"}})), "outside");
    expect_contains(refusal(zip_of({{.name = "a/../../b", .bytes = "x"}})), "outside");
}

TEST_F(Zips, damaged_bytes_are_found_by_the_checksum) {
    std::string bytes = zip_of({{.name = "a", .bytes = "some text"}});
    bytes[bytes.find("some")] = 'S';
    expect_contains(refusal(bytes), "checksum");
}

TEST_F(Zips, may_have_a_comment_that_looks_like_an_end_and_something_before_them) {
    const std::string whole =
        zip_of({{.name = "a", .bytes = "first"}, {.name = "b", .bytes = "second"}});
    const std::string trap = "PK\5\6 " + std::string(40, 'c') + "PK\5\6" + std::string(18, 'z');
    std::string commented = whole + trap;
    commented.replace(whole.size() - 2, 2, little(trap.size(), 2));
    for (const std::string& bytes :
         {commented, "#!/bin/sh\n" + whole, "#!/bin/sh\n" + commented, whole + "\n"}) {
        const ZipFile zip(written(bytes));
        ASSERT_EQ(zip.entries().size(), 2U);
        EXPECT_EQ(text_of(zip.read(*zip.find("b"), 100)), "second");
    }
    EXPECT_EQ(ZipFile(written(zip_of({}))).entries().size(), 0U);
}

TEST_F(Zips, have_names_in_utf8_or_in_code_page_437) {
    const std::string utf8 = "\xe6\x97\xa5.png", other = "caf\x82.png", checked("\x1", 1);
    const auto checksum =
        ::crc32(0, reinterpret_cast<const Bytef*>(other.data()), static_cast<uInt>(other.size()));
    const std::string field = checked + little(checksum, 4) + utf8,
                      extra = little(0x7075, 2) + little(field.size(), 2) + field;
    const std::string stale = checked + little(checksum + 1, 4) + utf8,
                      wrong = little(0x7075, 2) + little(stale.size(), 2) + stale;
    const ZipFile zip(written(zip_of({{.name = utf8, .bytes = "1"},
                                      {.name = other, .bytes = "2"},
                                      {.name = other, .bytes = "3", .extra = extra},
                                      {.name = other, .bytes = "4", .extra = wrong}})));
    std::vector<std::string> names;
    for (const auto& entry : zip.entries()) names.push_back(entry.name);
    EXPECT_EQ(names, (std::vector<std::string>{utf8, "caf\xc3\xa9.png", utf8, "caf\xc3\xa9.png"}));
    EXPECT_EQ(zip.guessed().names, 2U) << "those that no field and no UTF-8 names";
    EXPECT_EQ(zip.guessed().example, "caf\xc3\xa9.png");
    EXPECT_EQ(ZipFile(written(zip_of({{.name = utf8, .bytes = "1"}}))).guessed().names, 0U);
}

TEST_F(Zips, cut_short_or_changed_are_an_error_and_nothing_worse) {
    const std::string whole =
        zip_of({{.name = "a", .bytes = std::string(300, 'x'), .deflated = true},
                {.name = "b", .bytes = "stored"}});
    for (std::size_t length = 0; length < whole.size(); ++length)
        expect_contains(refusal(whole.substr(0, length)), "x.zip");
    for (std::size_t i = 0; i < whole.size(); ++i) {
        for (const char byte : {'\0', '\xff', '\x7f'}) {
            std::string changed = whole;
            changed[i] = byte;
            try {
                const ZipFile zip(written(changed));
                for (const auto& entry : zip.entries()) zip.read(entry, 1 << 20);
            } catch (const Error&) {
            }
        }
    }
}

}  // namespace
}  // namespace atelier::core
