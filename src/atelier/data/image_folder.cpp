#include "atelier/data/image_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "atelier/core/error.h"
#include "atelier/core/regular_file.h"
#include "atelier/core/text_encoding.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

/// Sorts by folder names first: '/' comes before every other character.
bool before_by_parts(const FileListing::File& a, const FileListing::File& b) {
    const auto rank = [](char c) {
        return c == '/' ? -1 : static_cast<int>(static_cast<unsigned char>(c));
    };
    return std::ranges::lexicographical_compare(a.name, b.name, {}, rank, rank);
}

class FolderFiles final : public FileListing {
public:
    explicit FolderFiles(fs::path folder) : folder_(std::move(folder)) {
        list("");
        std::ranges::sort(files_, before_by_parts);
    }

    Kind kind() const override { return Kind::folder; }
    std::uint64_t largest_text() const override { return std::uint64_t{256} << 20; }
    std::string where(std::size_t file) const override {
        return core::printable(path(file).string());
    }
    std::string identity(std::size_t file) const override {
        return fmt::format("{} {}", last_part(files_[file].name), fs::file_size(path(file)));
    }

    std::string version(std::size_t file) const override {
        struct ::stat status{};
        if (::stat(path(file).c_str(), &status) != 0) return files_[file].name;
        return fmt::format("{} {} {}.{}", files_[file].name, status.st_size, status.st_mtim.tv_sec,
                           status.st_mtim.tv_nsec);
    }

    void with_bytes(std::size_t file, std::uint64_t largest, const Use& use) const override {
        core::RegularFile from(path(file));
        if (from.size() > largest)
            core::fail("{}: has {} bytes; at most {} are read", where(file), from.size(), largest);
        use(read(from, from.size()));
    }

    void with_head(std::size_t file, const UseHead& use) const override {
        constexpr std::uint64_t head = 64 << 10;
        core::RegularFile from(path(file));
        const std::vector<std::byte> bytes = read(from, std::min(head, from.size()));
        use(bytes, from.size());
    }

private:
    fs::path path(std::size_t file) const { return folder_ / files_[file].name; }

    static std::vector<std::byte> read(core::RegularFile& from, std::uint64_t size) {
        std::vector<std::byte> bytes(static_cast<std::size_t>(size));
        bytes.resize(from.read(bytes));
        return bytes;
    }

    /// `below` is "" or ends with '/'.
    void list(const std::string& below) {
        constexpr std::size_t deepest = 64;
        struct ::stat status{};
        const fs::path here = folder_ / below;
        if (::stat(here.c_str(), &status) != 0)
            throw fs::filesystem_error("stat", here,
                                       std::error_code(errno, std::generic_category()));
        const std::pair<dev_t, ino_t> self{status.st_dev, status.st_ino};
        if (std::ranges::find(above_, self) != above_.end())
            return passed_over_.add("link back to a folder above it",
                                    "links back to folders above them",
                                    below.substr(0, below.size() - 1));
        if (above_.size() > deepest)
            core::fail("{}: its folders are nested more than {} deep", folder_.string(), deepest);
        if (!below.empty()) folders_.push_back(below.substr(0, below.size() - 1));
        above_.push_back(self);
        for (const auto& entry : fs::directory_iterator(here))
            add(entry, below + entry.path().filename().string());
        above_.pop_back();
    }

    void add(const fs::directory_entry& entry, std::string name) {
        std::error_code unreadable;
        if (entry.is_directory(unreadable)) {
            if (is_hidden_name(name)) passed_over_.hidden(name);
            else list(name + "/");
        } else if (entry.is_regular_file(unreadable)) {
            files_.push_back({std::move(name), 0});
        } else if (is_hidden_name(name)) {
            passed_over_.hidden(name);
        } else if (entry.is_symlink(unreadable)) {
            passed_over_.dead_link(name);
        } else {
            passed_over_.special_file(name);
        }
    }

    std::vector<std::pair<dev_t, ino_t>> above_;  // the folders that are currently being listed
    fs::path folder_;
};

}  // namespace

std::shared_ptr<const FileListing> files_of_folder(const fs::path& folder) {
    return std::make_shared<FolderFiles>(folder);
}

}  // namespace atelier::data
