#include "atelier/data/image_zip.h"

#include <algorithm>
#include <numeric>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/text_encoding.h"
#include "atelier/core/zip_file.h"

namespace atelier::data {

namespace {

class ZippedFiles final : public FileListing {
public:
    explicit ZippedFiles(const std::filesystem::path& path)
        : zip_(path), size_(std::filesystem::file_size(path)) {
        std::vector<std::size_t> order(zip_.entries().size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::ranges::stable_sort(order, {}, [this](std::size_t i) -> const std::string& {
            return zip_.entries()[i].name;
        });
        for (std::size_t i = 0; i < order.size(); ++i) {
            const auto& entry = zip_.entries()[order[i]];
            if (i + 1 < order.size() && zip_.entries()[order[i + 1]].name == entry.name) {
                passed_over_.add("entry that a later one replaces",
                                 "entries that later ones replace", entry.name);
                continue;
            }
            files_.push_back({plain_name(entry.name), 0});
            entries_.push_back(&entry);
        }
        if (const auto& guessed = zip_.guessed(); guessed.names > 0)
            core::log::warning(
                "{}: {} not say the encoding, and {} read as code page 437, \"{}\" for instance; "
                "where "
                "that is wrong, unpack the archive and give the folder",
                path.string(),
                guessed.names == 1 ? "one name does" : fmt::format("{} names do", guessed.names),
                guessed.names == 1 ? "is" : "are", core::printable(guessed.example.substr(0, 200)));
    }

    Kind kind() const override { return Kind::zip; }
    std::uint64_t largest_text() const override {
        return std::min<std::uint64_t>(std::uint64_t{256} << 20,
                                       (std::uint64_t{4} << 20) + 20 * size_);
    }
    std::string where(std::size_t file) const override {
        return fmt::format("{}: {}", zip_.path().string(), core::printable(files_[file].name));
    }
    std::string identity(std::size_t file) const override {
        return fmt::format("{} {} {}", entries_[file]->name, entries_[file]->size,
                           entries_[file]->checksum);
    }
    std::string version(std::size_t file) const override { return identity(file); }
    void with_bytes(std::size_t file, std::uint64_t largest, const Use& use) const override {
        use(zip_.read(*entries_[file], largest));
    }

    void with_head(std::size_t file, const UseHead& use) const override {
        constexpr std::uint64_t largest = 64 << 20;
        if (!entries_[file]->deflated)
            return use(zip_.stored(*entries_[file]), entries_[file]->size);
        const std::vector<std::byte> bytes = zip_.read(*entries_[file], largest);
        use(bytes, bytes.size());
    }

private:
    core::ZipFile zip_;
    std::uint64_t size_;
    std::vector<const core::ZipFile::Entry*> entries_;
};

}  // namespace

std::shared_ptr<const FileListing> files_of_zip(const std::filesystem::path& path) {
    return std::make_shared<ZippedFiles>(path);
}

}  // namespace atelier::data
