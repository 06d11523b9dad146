#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace atelier::data {

/// The entries of a data set that are not read, counted by kind.
class PassedOver {
public:
    /// `one` is the kind in the singular, `many` in the plural; `name` is reported if it is the
    /// first. `expected` entries are common system files that need no warning.
    void add(const std::string& one, const std::string& many, std::string_view name,
             bool expected = false);
    void add(const PassedOver& others);

    void hidden(std::string_view name) { add("hidden file", "hidden files", name, true); }
    void dead_link(std::string_view name) {
        add("link that leads to no file", "links that lead to no file", name);
    }
    void special_file(std::string_view name) {
        add("pipe, device or the like", "pipes, devices or the like", name);
    }
    /// A file of a kind that is not read, counted by its extension.
    void file(std::string_view name);

    std::int64_t count() const { return count_; }
    /// Whether there are only expected entries.
    bool only_expected() const { return count_ == expected_; }
    /// "12 entries passed over (8 .gif, 3 links that lead to no file, 1 hidden file), the first:
    /// NAME".
    std::string summary() const;

private:
    struct Kind {
        std::string many;
        std::int64_t count = 0;
    };
    std::map<std::string, Kind> kinds_;
    std::string first_;
    bool first_expected_ = false;
    std::int64_t count_ = 0, expected_ = 0;
};

/// Whether a file is hidden or a system file: it or one of its folders begins with a dot or is
/// __MACOSX, or it is Thumbs.db or desktop.ini.
bool is_hidden_name(std::string_view name);

}  // namespace atelier::data
