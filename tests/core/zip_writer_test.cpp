#include "atelier/core/zip_writer.h"

#include <sys/stat.h>

#include <fstream>

#include "atelier/core/atomic_file.h"
#include "atelier/core/zip_file.h"
#include "core/test_folder.h"

namespace atelier::core {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
    return std::as_bytes(std::span(text));
}

std::string text_in(const ZipFile& zip, const std::string& name) {
    const auto bytes = zip.read(*zip.find(name), 1 << 20);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(ZipWriter, what_it_writes_is_read_back) {
    const TestFolder folder;
    {
        ZipWriter zip(folder / "new/a.zip", "test");
        zip.add("one.txt", bytes_of("first"));
        zip.add("two/empty", bytes_of(""));
        EXPECT_FALSE(std::filesystem::exists(folder / "new/a.zip"));
        zip.commit();
    }
    const ZipFile zip(folder / "new/a.zip");
    ASSERT_EQ(zip.entries().size(), 2u);
    EXPECT_EQ(text_in(zip, "one.txt"), "first");
    EXPECT_EQ(text_in(zip, "two/empty"), "");
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "new"), {}), 1)
        << "something was left beside it";
}

TEST(ZipWriter, continues_after_the_last_complete_entry) {
    const TestFolder folder;
    const auto path = folder / "a.zip";
    {
        ZipWriter zip(path, "test");
        zip.add("one", bytes_of("first"));
        zip.add("two", bytes_of("second"));
    }
    const std::string whole = read_text(ZipWriter::part_of(path));
    for (std::size_t cut = whole.size() - 38; cut < whole.size();
         ++cut) {  // anywhere within the second entry
        std::ofstream(ZipWriter::part_of(path), std::ios::binary) << whole.substr(0, cut);
        ZipWriter zip(path, "test");
        ASSERT_EQ(zip.count(), 1u) << cut;
        EXPECT_EQ(zip.name(0), "one");
    }
    {
        ZipWriter zip(path, "test");
        zip.add("two", bytes_of("second"));
        EXPECT_EQ(read_text(ZipWriter::part_of(path)), whole);
        zip.commit();
    }
    EXPECT_EQ(text_in(ZipFile(path), "two"), "second");
}

TEST(ZipWriter, keeps_entries_of_another_purpose_that_are_still_valid) {
    const TestFolder folder;
    const auto path = folder / "a.zip";
    {
        ZipWriter zip(path, "before");
        for (const char* name : {"one", "two", "bad", "three"}) zip.add(name, bytes_of(name));
    }
    const ZipWriter::ResumeCheck resume_check =
        [](const std::string& before) -> ZipWriter::EntryCheck {
        EXPECT_EQ(before, "before");
        return [](const std::string& entry) { return entry != "bad"; };
    };
    ZipWriter zip(path, "now", resume_check);
    ASSERT_EQ(zip.count(), 2U);
    zip.add("new", bytes_of("new"));
    zip.commit();
    EXPECT_EQ(text_in(ZipFile(path), "two"), "two");
    EXPECT_EQ(text_in(ZipFile(path), "new"), "new");
    EXPECT_EQ(ZipFile(path).entries().size(), 3U);
}

TEST(ZipWriter, starts_again_for_another_purpose) {
    const TestFolder folder;
    ZipWriter(folder / "a.zip", "one way").add("one", bytes_of("first"));
    EXPECT_EQ(ZipWriter(folder / "a.zip", "another way").count(), 0u);
}

TEST(ZipWriter, a_second_process_is_refused) {
    const TestFolder folder;
    const ZipWriter zip(folder / "a.zip", "test");
    expect_contains(error_of([&] { ZipWriter(folder / "a.zip", "test"); }),
                    "another process is writing it");
}

TEST(ZipWriter, more_entries_than_16_bits_count_are_read_back) {
    const TestFolder folder;
    {
        ZipWriter zip(folder / "a.zip", "test");
        for (int i = 0; i < 70000; ++i) zip.add(std::to_string(i), bytes_of("x"));
        zip.commit();
    }
    const ZipFile zip(folder / "a.zip");
    EXPECT_EQ(zip.entries().size(), 70000u);
    EXPECT_EQ(text_in(zip, "69999"), "x");
}

void write_archive(const std::filesystem::path& path) {
    ZipWriter::check_output(path);
    ZipWriter zip(path, "test");
    zip.add("one", bytes_of("first"));
    zip.commit();
}

TEST(ZipWriter, takes_the_place_of_what_a_link_leads_to) {
    const TestFolder folder;
    std::filesystem::create_directory(folder / "elsewhere");
    for (const bool exists : {false, true}) {
        const auto target = folder / (exists ? "elsewhere/old.zip" : "elsewhere/new.zip"),
                   link = folder / (exists ? "old.zip" : "new.zip");
        if (exists) write_text(target, "old");
        std::filesystem::create_symlink(target, link);
        write_archive(link);
        EXPECT_TRUE(std::filesystem::is_symlink(link));
        EXPECT_EQ(text_in(ZipFile(target), "one"), "first");
    }
    EXPECT_EQ(folder.entries(), 3U) << "nothing is left";
}

TEST(ZipWriter, keeps_the_mode_of_a_replaced_file) {
    const TestFolder folder;
    write_text(folder / "a.zip", "old");
    std::filesystem::permissions(
        folder / "a.zip", std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    write_archive(folder / "a.zip");
    EXPECT_EQ(std::filesystem::status(folder / "a.zip").permissions(),
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST(ZipWriter, says_before_the_work_what_cannot_be_written) {
    const TestFolder folder;
    std::filesystem::create_directory(folder / "folder.zip");
    ASSERT_EQ(::mkfifo((folder / "pipe.zip").c_str(), 0600), 0);
    const auto check = [&](const std::string& name) {
        return error_of<Error>([&] { ZipWriter::check_output(folder / name); });
    };
    EXPECT_NE(check("folder.zip").find("is a folder"), std::string::npos);
    EXPECT_NE(check("pipe.zip").find("is a device or a pipe"), std::string::npos);
    EXPECT_NE(check(std::string(246, 'a')).find("too long by 1 bytes"), std::string::npos);
    ZipWriter::check_output(folder / std::string(245, 'a'));
    EXPECT_EQ(folder.entries(), 2U);
}

}  // namespace
}  // namespace atelier::core
