#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::core {

/// The valid range of a number. (Outside the class, so that g++ accepts it as a default argument
/// there.)
struct SchemaRange {
    double min = -std::numeric_limits<double>::infinity();
    double max = std::numeric_limits<double>::infinity();
    bool affects_result = true;  // false: may change when a run is resumed
};

/// Binds the fields of plain structs to dotted keys, so that a config is described once for
/// reading, checking, explaining, recording and comparing.
///
///     Schema schema;
///     schema.number("teacher.steps", &config.steps, "optimiser steps", {.min = 0});
///     schema.read("configs/toy2d.toml", {"teacher.steps=100"});
class Schema {
public:
    using Range = SchemaRange;

    void number(std::string key, std::int64_t* field, std::string help, Range range = {});
    void number(std::string key, double* field, std::string help, Range range = {});
    /// A number, or "auto": then the field is empty. A quoted number is read too, as older configs
    /// have it.
    void number_or_auto(std::string key, std::optional<double>* field, std::string help,
                        Range range = {});
    void flag(std::string key, bool* field, std::string help, bool affects_result = true);
    /// `choices` empty: any text.
    void text(std::string key, std::string* field, std::string help,
              std::vector<std::string> choices = {}, bool affects_result = true);
    /// One of several values, by name.
    template <class Value>
    void choice(std::string key, Value* field, std::string help,
                std::vector<std::pair<std::string, Value>> values) {
        std::vector<std::string> names;
        for (const auto& [name, value] : values) names.push_back(name);
        bind_choice(std::move(key), std::move(help), std::move(names),
                    {[field, values](const std::string& chosen) {
                         for (const auto& [name, value] : values)
                             if (name == chosen) *field = value;
                     },
                     [field, values] {
                         for (const auto& [name, value] : values)
                             if (*field == value) return name;
                         return std::string();
                     }});
    }
    void numbers(std::string key, std::vector<std::int64_t>* field, std::string help,
                 Range range = {});
    void numbers(std::string key, std::vector<double>* field, std::string help, Range range = {});
    void texts(std::string key, std::vector<std::string>* field, std::string help,
               std::vector<std::string> choices = {});

    /// Lets `read` accept a bound key under a name from earlier versions as well. Former names are
    /// neither suggested nor explained, and the same source may not give a key under two names.
    void formerly(const std::string& key, std::string former_name);

    /// All former names, each with the key that it stands for.
    std::map<std::string, std::string> former_keys() const;

    /// Sets the stages whose results depend on the keys that are bound from here on (none at
    /// first), so that a new key cannot be forgotten where a stage is tied to its settings
    /// (`values_of`).
    void set_stages(std::vector<std::string> stages) { stages_ = std::move(stages); }

    /// Sets the fields from a TOML file, then from `key=value` overrides (the value in TOML syntax;
    /// a bare word is a string). Throws UsageError on an unknown key, a wrong type, or a value out
    /// of range, naming the key, the file, the line and, for an unknown key, the nearest known one.
    /// Integers are accepted where a real number is expected.
    void read(const std::filesystem::path& toml, const std::vector<std::string>& overrides);

    /// The current values of the fields as nested JSON. With `only_result`, fields that do not
    /// affect results are left out.
    nlohmann::json values(bool only_result = false) const;

    /// The current values of the fields that affect the result of a stage, by its name in
    /// `set_stages`.
    nlohmann::json values_of(const std::string& stage) const;

    /// Where the value of a key comes from: the program's default, the file, or an override.
    enum class Source { preset, file, command_line };
    Source source(const std::string& key) const;

    /// One line per key: name, type, default, range, meaning; the defaults are the values at
    /// binding time.
    std::string explain() const;

    /// A field whose values have names.
    struct Choice {
        std::function<void(const std::string&)> set;
        std::function<std::string()> get;
    };

private:
    using Field = std::variant<const Choice*, std::int64_t*, double*, std::optional<double>*, bool*,
                               std::string*, std::vector<std::int64_t>*, std::vector<double>*,
                               std::vector<std::string>*>;
    struct Binding {
        std::string key, help, default_text;
        Field field;
        Range range;
        std::vector<std::string> choices;
        std::vector<std::string> stages{}, former_names{};
        Source source = Source::preset;
    };
    void bind(Binding binding);
    void bind_choice(std::string key, std::string help, std::vector<std::string> names,
                     Choice choice);
    std::vector<Binding>::iterator find(const std::string& key_or_former_name);
    nlohmann::json values_where(const std::function<bool(const Binding&)>& chosen) const;

    std::vector<Binding> bindings_;
    std::vector<std::string> stages_;
    std::vector<std::shared_ptr<const Choice>> choices_;
};

/// The leaves in which two JSON objects differ, one line each: "teacher.lr: 0.001 -> 0.002". Empty
/// when they are equal.
std::vector<std::string> differences(const nlohmann::json& before, const nlohmann::json& after);

/// The same for values recorded by another version, which may have known other keys. A leaf that
/// only `recorded` has does not count; a leaf that only `now` has does not count where it has its
/// value in `defaults`, or where nothing of its table was recorded: then the result did not depend
/// on it. A number that was recorded as a string ("0.01") counts as that number.
std::vector<std::string> changed_since(const nlohmann::json& recorded, const nlohmann::json& now,
                                       const nlohmann::json& defaults);

/// The known word nearest to `word` by edit distance, or "" when none is near.
std::string nearest_word(std::string_view word, const std::vector<std::string>& known);

/// `; did you mean "nearest"?`, to append after an unknown word, or "" when none is near.
std::string did_you_mean(const std::string& word, const std::vector<std::string>& known);

}  // namespace atelier::core
