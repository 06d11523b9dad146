#include "atelier/data/image_tar.h"

#include <algorithm>
#include <unordered_map>

#include "atelier/core/error.h"
#include "atelier/core/tar_file.h"
#include "atelier/core/text_encoding.h"

namespace atelier::data {

namespace {

namespace fs = std::filesystem;

bool is_tar(const fs::directory_entry& entry) {
    const std::string name = entry.path().filename().string();
    std::error_code unreadable;
    return ending_of(name) == ".tar" && !is_hidden_name(name) && entry.is_regular_file(unreadable);
}

class TarredFiles final : public FileListing {
public:
    explicit TarredFiles(const fs::path& path) {
        for (const fs::path& each :
             fs::is_directory(path) ? tars_of(path) : std::vector<fs::path>{path})
            add(std::make_unique<core::TarFile>(each));
    }

    Kind kind() const override { return Kind::tars; }
    std::uint64_t largest_text() const override { return std::uint64_t{256} << 20; }
    std::string where(std::size_t file) const override {
        return fmt::format("{}: {}", tar_of(file).path().string(),
                           core::printable(files_[file].name));
    }
    std::string identity(std::size_t file) const override {
        return fmt::format("{}: {} {}", tar_of(file).path().string(), files_[file].name,
                           entries_[file]->bytes.size());
    }

    std::string version(std::size_t file) const override {
        const auto& path = tar_of(file).path();
        return fmt::format("{} {}", identity(file),
                           fs::last_write_time(path).time_since_epoch().count());
    }

    void with_bytes(std::size_t file, std::uint64_t largest, const Use& use) const override {
        if (entries_[file]->bytes.size() > largest)
            core::fail("{}: has {} bytes; at most {} are read", where(file),
                       entries_[file]->bytes.size(), largest);
        use(entries_[file]->bytes);
    }

    void with_head(std::size_t file, const UseHead& use) const override {
        use(entries_[file]->bytes, entries_[file]->bytes.size());
    }

private:
    const core::TarFile& tar_of(std::size_t file) const {
        return *tars_[static_cast<std::size_t>(files_[file].archive)];
    }

    std::vector<fs::path> tars_of(const fs::path& folder) {
        std::vector<fs::path> tars;
        for (const auto& entry : fs::directory_iterator(folder)) {
            const std::string name = entry.path().filename().string();
            std::error_code unreadable;
            if (is_tar(entry)) tars.push_back(entry.path());
            else if (is_hidden_name(name)) passed_over_.hidden(name);
            else if (entry.is_directory(unreadable))
                passed_over_.add("folder beside the tars", "folders beside the tars", name);
            else if (entry.is_regular_file(unreadable)) passed_over_.file(name);
            else if (entry.is_symlink(unreadable)) passed_over_.dead_link(name);
            else passed_over_.special_file(name);
        }
        std::ranges::sort(tars);
        return tars;
    }

    void add(std::unique_ptr<const core::TarFile> tar) {
        const auto archive = static_cast<std::int64_t>(tars_.size());
        std::unordered_map<std::string, std::size_t> last;
        std::vector<std::string> names;
        for (const auto& entry : tar->entries()) {
            names.push_back(plain_name(entry.name));
            last[names.back()] = names.size() - 1;
        }
        for (std::size_t i = 0; i < names.size(); ++i) {
            if (last.at(names[i]) != i) {
                passed_over_.add("entry that a later one replaces",
                                 "entries that later ones replace", names[i]);
                continue;
            }
            files_.push_back({std::move(names[i]), archive});
            entries_.push_back(&tar->entries()[i]);
        }
        for (const auto& [name, why] : tar->passed_over()) {
            if (is_hidden_name(plain_name(name))) passed_over_.hidden(name);
            else if (why == core::TarFile::PassedOver::Why::dead_link) passed_over_.dead_link(name);
            else passed_over_.special_file(name);
        }
        tars_.push_back(std::move(tar));
    }

    std::vector<std::unique_ptr<const core::TarFile>> tars_;
    std::vector<const core::TarFile::Entry*> entries_;
};

}  // namespace

bool is_tar_folder(const fs::path& folder) {
    return std::ranges::any_of(fs::directory_iterator(folder), is_tar);
}

std::shared_ptr<const FileListing> files_of_tars(const fs::path& path) {
    return std::make_shared<TarredFiles>(path);
}

}  // namespace atelier::data
