#include "atelier/core/tar_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/archives.h"
#include "core/test_folder.h"

namespace atelier::core {
namespace {

class Tars : public testing::Test {
protected:
    std::filesystem::path written(const std::string& bytes) {
        std::ofstream(folder_ / "x.tar", std::ios::binary) << bytes;
        return folder_ / "x.tar";
    }
    std::string refusal(const std::string& bytes) {
        return error_of([&] { TarFile tar(written(bytes)); });
    }

    TestFolder folder_;
};

TEST_F(Tars, files_are_listed_with_their_bytes_and_others_passed_over) {
    const std::string long_name = std::string(150, 'n') + ".png", pax = "28 path=from/the/header.cls\n";
    const TarFile tar(written(tar_of({{"a.png", "picture"}, {"folder/", "", '5'}, {"link", "", '2'}, {"././@LongLink", long_name + std::string(1, '\0'), 'L'},
                                      {"cut", "long"}, {"PaxHeader", pax, 'x'}, {"short", "5"}})));
    ASSERT_EQ(tar.entries().size(), 3U);
    EXPECT_EQ(tar.entries()[0].name, "a.png");
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(tar.entries()[0].bytes.data()), tar.entries()[0].bytes.size()), "picture");
    EXPECT_EQ(tar.entries()[1].name, long_name);
    EXPECT_EQ(tar.entries()[2].name, "from/the/header.cls");
}

TEST_F(Tars, that_are_none_or_broken_are_one_error) {
    expect_contains(refusal(""), "no tar archive");
    expect_contains(refusal(std::string(2000, 'x')), "no tar archive");
    std::string bytes = tar_of({{"a.png", "picture"}});
    bytes[3] = 'X';
    expect_contains(refusal(bytes), "checksum");
    const std::string whole = tar_of({{"a.png", std::string(2000, 'x')}});
    expect_contains(refusal(whole.substr(0, 1500)), "cut off");
}

TEST_F(Tars, with_names_that_leave_the_archive_are_refused) {
    expect_contains(refusal(tar_of({{"../a.png", "x"}})), "outside");
    expect_contains(refusal(tar_of({{"/a.png", "x"}})), "outside");
}

TEST_F(Tars, changed_anywhere_are_an_error_and_nothing_worse) {
    const std::string whole = tar_of({{"a.png", "picture"}, {"././@LongLink", "long.png", 'L'}, {"x", "long"}, {"p", "16 path=pax.png\n", 'x'}, {"short", "5"}});
    for (std::size_t i = 0; i < whole.size(); ++i) {
        std::string changed = whole;
        changed[i] = '\xff';
        try {
            const TarFile tar(written(changed));
        } catch (const Error&) {
        }
    }
}

}  // namespace
}  // namespace atelier::core
