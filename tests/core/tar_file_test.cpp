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
    const std::string long_name = std::string(150, 'n') + ".png",
                      pax = "28 path=from/the/header.cls\n";
    const TarFile tar(written(tar_of({{"a.png", "picture"},
                                      {"folder/", "", '5'},
                                      {"link", "", '2'},
                                      {"././@LongLink", long_name + std::string(1, '\0'), 'L'},
                                      {"cut", "long"},
                                      {"PaxHeader", pax, 'x'},
                                      {"short", "5"}})));
    ASSERT_EQ(tar.entries().size(), 3U);
    EXPECT_EQ(tar.entries()[0].name, "a.png");
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(tar.entries()[0].bytes.data()),
                          tar.entries()[0].bytes.size()),
              "picture");
    EXPECT_EQ(tar.entries()[1].name, long_name);
    EXPECT_EQ(tar.entries()[2].name, "from/the/header.cls");
}

TEST_F(Tars, give_links_the_bytes_of_what_they_lead_to) {
    const std::string far = std::string(120, 'f') + "/a.png", pax = "23 linkpath=deep/a.png\n";
    const TarFile tar(
        written(tar_of({{.name = "deep/a.png", .bytes = "picture"},
                        {.name = "hard.png", .bytes = "", .type = '1', .target = "./deep/a.png"},
                        {.name = "deep/soft.png", .bytes = "", .type = '2', .target = "a.png"},
                        {.name = "up/soft.png", .bytes = "", .type = '2', .target = "../hard.png"},
                        {"PaxHeader", pax, 'x'},
                        {.name = "pax.png", .bytes = "", .type = '1', .target = "x"},
                        {"././@LongLink", far + std::string(1, '\0'), 'K'},
                        {.name = "long.png", .bytes = "", .type = '1', .target = "x"},
                        {.name = far.substr(0, 90), .bytes = "", .type = '5'},
                        {.name = "gone.png", .bytes = "", .type = '2', .target = "nowhere"},
                        {.name = "out.png", .bytes = "", .type = '2', .target = "../../etc/passwd"},
                        {.name = "round1", .bytes = "", .type = '2', .target = "round2"},
                        {.name = "round2", .bytes = "", .type = '2', .target = "round1"},
                        {.name = "pipe", .bytes = "", .type = '6'}})));
    std::vector<std::string> names, passed;
    for (const auto& entry : tar.entries()) {
        names.push_back(entry.name);
        EXPECT_EQ(
            std::string(reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size()),
            "picture")
            << entry.name;
    }
    for (const auto& [name, why] : tar.passed_over())
        passed.push_back(name + (why == TarFile::PassedOver::Why::dead_link ? " dead" : ""));
    EXPECT_EQ(names, (std::vector<std::string>{"deep/a.png", "hard.png", "deep/soft.png",
                                               "up/soft.png", "pax.png"}));
    EXPECT_EQ(passed, (std::vector<std::string>{"long.png dead", "gone.png dead", "out.png dead",
                                                "round1 dead", "round2 dead", "pipe"}));
}

TEST_F(Tars, take_sizes_from_pax_headers) {
    std::string bytes =
        tar_of({{"PaxHeader", "9 size=7\n", 'x'}, {"a.png", "picture"}, {"b.png", "next"}});
    std::string header = bytes.substr(1024, 512);
    header.replace(124, 12, "00000000000 ");  // too large for the header, say
    header.replace(148, 8, "        ");
    std::size_t sum = 0;
    for (const char byte : header) sum += static_cast<unsigned char>(byte);
    header.replace(148, 7, octal(sum, 6) + std::string("\0", 1));
    bytes.replace(1024, 512, header);
    const TarFile tar(written(bytes));
    ASSERT_EQ(tar.entries().size(), 2U);
    EXPECT_EQ(tar.entries()[0].bytes.size(), 7U);
    EXPECT_EQ(tar.entries()[1].name, "b.png");
}

TEST_F(Tars, that_are_invalid_or_broken_are_one_error) {
    expect_contains(refusal(""), "not a tar archive");
    expect_contains(refusal(std::string(2000, 'x')), "not a tar archive");
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
    const std::string whole = tar_of({{"a.png", "picture"},
                                      {"././@LongLink", "long.png", 'L'},
                                      {"x", "long"},
                                      {"p", "16 path=pax.png\n", 'x'},
                                      {"short", "5"}});
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
