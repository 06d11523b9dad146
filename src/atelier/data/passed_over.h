#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace atelier::data {

/// What lies beside the images of a data set and is not read, counted by kind.
class PassedOver {
public:
    /// `one` is the kind, in the singular, `many` in the plural; `name` is what is called by name
    /// if it is the first. `expected` ones lie everywhere and are no loss.
    void add(const std::string& one, const std::string& many, std::string_view name,
             bool expected = false);
    void add(const PassedOver& others);

    void hidden(std::string_view name) { add("hidden file", "hidden files", name, true); }
    void dead_link(std::string_view name) {
        add("link that leads to no file", "links that lead to no file", name);
    }
    void no_file(std::string_view name) {
        add("pipe, device or the like", "pipes, devices or the like", name);
    }
    /// A file of a kind that is not read, by the ending of its name.
    void file(std::string_view name);

    std::int64_t count() const { return count_; }
    /// Nothing but what lies everywhere.
    bool only_expected() const { return count_ == expected_; }
    /// "12 entries passed over (8 .gif, 3 links that lead to no file, 1 hidden file), the first:
    /// NAME".
    std::string words() const;

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

/// Whether a file is one that systems leave beside others: begins with a dot, lies in such a folder
/// or in __MACOSX, or is Thumbs.db or desktop.ini.
bool is_hidden_name(std::string_view name);

}  // namespace atelier::data
