// Reads every file of the corpus, and mutations of it, with its reader: no crash, no exception but
// core::Error, no memory beyond what the file accounts for.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

#include "atelier/core/error.h"
#include "fuzz/targets.h"

namespace atelier::fuzz {
namespace {

constexpr int mutations_per_file = 50;

std::vector<std::filesystem::path> corpus(const Target& target) {
    const auto folder =
        std::filesystem::path(ATELIER_SOURCE_DIR) / "tests/fuzz/corpus" / target.name;
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
}

std::vector<std::uint8_t> bytes_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// One to four changes: bits flipped, extreme byte values, runs cut out, repeated or swapped in
/// from elsewhere, the end cut off.
std::vector<std::uint8_t> mutated(std::vector<std::uint8_t> file, std::mt19937& random) {
    const auto below = [&](std::size_t n) {
        return static_cast<std::size_t>(random() % std::max<std::size_t>(n, 1));
    };
    for (std::size_t changes = 1 + below(4); changes > 0 && !file.empty(); --changes) {
        const std::size_t at = below(file.size()), run = std::min(file.size() - at, 1 + below(16));
        const auto from = file.begin() + static_cast<std::ptrdiff_t>(at);
        switch (below(6)) {
            case 0:
                file[at] ^= static_cast<std::uint8_t>(1U << below(8));
                break;
            case 1:
                std::fill_n(from, run, std::array<std::uint8_t, 4>{0, 0xff, 0x7f, 0x80}[below(4)]);
                break;
            case 2:
                file.erase(from, from + static_cast<std::ptrdiff_t>(run));
                break;
            case 3: {
                const std::vector<std::uint8_t> copy(from, from + static_cast<std::ptrdiff_t>(run));
                file.insert(file.begin() + static_cast<std::ptrdiff_t>(below(file.size())),
                            copy.begin(), copy.end());
                break;
            }
            case 4:
                file[at] = file[below(file.size())];
                break;
            default:
                file.resize(at);
        }
    }
    return file;
}

class Readers : public testing::TestWithParam<Target> {};

TEST_P(Readers, read_the_whole_files_of_the_corpus) {
    const auto files = corpus(GetParam());
    std::size_t whole = 0;
    for (const auto& path : files) {
        SCOPED_TRACE(path);
        const auto file = bytes_of(path);
        try_file(GetParam(), file);
        if (path.filename().string().starts_with("bad")) continue;
        EXPECT_NO_THROW(GetParam().read(file));
        ++whole;
    }
    EXPECT_GE(whole, 2U);  // a reader that rejects everything would pass the other tests
}

TEST_P(Readers, survive_mutations) {
    std::mt19937 random(1);
    for (const auto& path : corpus(GetParam())) {
        SCOPED_TRACE(path);
        const auto file = bytes_of(path);
        for (int i = 0; i < mutations_per_file; ++i) try_file(GetParam(), mutated(file, random));
    }
}

TEST_P(Readers, survive_nothing_and_noise) {
    std::mt19937 random(2);
    try_file(GetParam(), {});
    for (int i = 0; i < mutations_per_file; ++i) {
        std::vector<std::uint8_t> noise(random() % 300);
        for (auto& byte : noise) byte = static_cast<std::uint8_t>(random());
        try_file(GetParam(), noise);
    }
}

INSTANTIATE_TEST_SUITE_P(All, Readers, testing::ValuesIn(targets().begin(), targets().end()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace atelier::fuzz
