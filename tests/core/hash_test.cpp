#include "atelier/core/hash.h"

#include "core/test_folder.h"

#include "atelier/core/atomic_file.h"

namespace atelier::core {

TEST(Hash, sha256_gives_the_published_vectors) {
    EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256_of_lines(std::vector<std::string>{"a", "", "b"}), sha256("a\n\nb"));
    EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Hash, a_file_hashes_like_its_bytes) {
    const TestFolder folder;
    const std::string text(3'000'000, 'x');  // more than one block
    write_text(folder / "file", text);
    EXPECT_EQ(sha256_of_file(folder / "file"), sha256(text));
}

TEST(Hash, a_missing_file_is_an_error_that_names_it) {
    expect_contains(error_of([] { sha256_of_file("/nowhere/file"); }), "/nowhere/file");
}

TEST(Hash, fnv1a_gives_the_published_vectors) {
    EXPECT_EQ(fnv1a(""), 0xcbf29ce484222325ULL);
    EXPECT_EQ(fnv1a("foobar"), 0x85944171f73967e8ULL);
}

}  // namespace atelier::core
