#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::core {

/// What a number may be. (Outside the class, so that g++ takes it as a default argument there.)
struct SchemaRange {
    double least = -std::numeric_limits<double>::infinity();
    double most = std::numeric_limits<double>::infinity();
    bool affects_result = true;  // false: may change between a run's start and its resumption
};

/// Binds the fields of plain structs to dotted keys, so that a config is described once: where it is read, checked, explained,
/// recorded and compared.
///
///     Schema schema;
///     schema.number("teacher.steps", &config.steps, "optimiser steps", {.least = 0});
///     schema.read("configs/toy2d.toml", {"teacher.steps=100"});
class Schema {
public:
    using Range = SchemaRange;

    void number(std::string key, std::int64_t* field, std::string help, Range range = {});
    void number(std::string key, double* field, std::string help, Range range = {});
    void flag(std::string key, bool* field, std::string help, bool affects_result = true);
    /// `choices` empty: any text.
    void text(std::string key, std::string* field, std::string help, std::vector<std::string> choices = {},
              bool affects_result = true);
    void numbers(std::string key, std::vector<std::int64_t>* field, std::string help, Range range = {});
    void numbers(std::string key, std::vector<double>* field, std::string help, Range range = {});
    void texts(std::string key, std::vector<std::string>* field, std::string help, std::vector<std::string> choices = {});

    /// Stages whose results depend on the keys that are bound from here on (none at first), so that a new key cannot be forgotten where a stage is tied to its
    /// settings (`values_of`).
    void results_of(std::vector<std::string> stages) { stages_ = std::move(stages); }

    /// Sets the fields from a TOML file, then from `key=value` overrides (the value in TOML's syntax; a bare word is a string).
    /// An unknown key, a wrong type, or a value out of range is a UsageError naming the key, the file, the line and, for an
    /// unknown key, the nearest known one. Integers are accepted where a real number is wanted.
    void read(const std::filesystem::path& toml, const std::vector<std::string>& overrides);

    /// The fields' present values as nested JSON. With `only_result`, fields that do not affect results are left out.
    nlohmann::json values(bool only_result = false) const;

    /// Of those that affect the result of a stage, by its name in `results_of`.
    nlohmann::json values_of(const std::string& stage) const;

    /// Where a key's value comes from: nowhere but the program itself, the file, or an override.
    enum class Source { preset, file, command_line };
    Source source(const std::string& key) const;

    /// One line a key: name, type, default, range, meaning; the defaults are the values at binding time.
    std::string explain() const;

private:
    using Field = std::variant<std::int64_t*, double*, bool*, std::string*, std::vector<std::int64_t>*, std::vector<double>*,
                               std::vector<std::string>*>;
    struct Binding {
        std::string key, help, default_text;
        Field field;
        Range range;
        std::vector<std::string> choices;
        std::vector<std::string> stages{};
        Source source = Source::preset;
    };
    void bind(Binding binding);
    nlohmann::json values_where(const std::function<bool(const Binding&)>& chosen) const;

    std::vector<Binding> bindings_;
    std::vector<std::string> stages_;
};

/// The leaves at which two JSON objects differ, a line each: "teacher.lr: 0.001 -> 0.002". Empty when they are equal.
std::vector<std::string> differences(const nlohmann::json& before, const nlohmann::json& after);

/// The same for values that were recorded by a program which may have known other keys. A leaf of `recorded` alone does not count; neither does one of `now` alone
/// where it has its value of `defaults`, or where nothing of its table was recorded: then the result was not tied to that.
std::vector<std::string> changed_since(const nlohmann::json& recorded, const nlohmann::json& now, const nlohmann::json& defaults);

/// The known word nearest to `word` by edit distance, or "" when none is near.
std::string nearest_word(std::string_view word, const std::vector<std::string>& known);

/// `; did you mean "nearest"?` to put behind an unknown word, or "" when none is near.
std::string did_you_mean(const std::string& word, const std::vector<std::string>& known);

}  // namespace atelier::core
