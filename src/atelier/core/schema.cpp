#include "atelier/core/schema.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <sstream>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"

namespace atelier::core {

using nlohmann::json;

namespace {

constexpr const char* command_line = "command line";
constexpr std::size_t largest_config = std::size_t{1} << 20;

template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) {
    throw UsageError(fmt::format(text, std::forward<Args>(args)...));
}

// "a string ("soon")": what stands where something else was expected.
std::string found_words(const toml::node& node) {
    if (node.is_table()) return "a table";
    if (node.is_array()) return "a list";
    std::ostringstream text;
    node.visit([&](const auto& value) { text << value; });
    if (const auto* string = node.as_string()) return fmt::format("a string (\"{}\")", string->get().substr(0, 200));
    const char* kind = node.is_integer()          ? "a whole number"
                       : node.is_floating_point() ? "a real number"
                       : node.is_boolean()        ? "true or false"
                                                  : "a date or time";
    return fmt::format("{} ({})", kind, text.str());
}

std::string range_words(double least, double most) {
    const bool bounded_below = std::isfinite(least);
    const bool bounded_above = std::isfinite(most);
    if (bounded_below && bounded_above) return fmt::format("from {} to {}", least, most);
    if (bounded_below) return fmt::format("at least {}", least);
    if (bounded_above) return fmt::format("at most {}", most);
    return "";
}

std::string choice_words(const std::vector<std::string>& choices) {
    std::vector<std::string> quoted;
    for (const auto& choice : choices) quoted.push_back(fmt::format("\"{}\"", choice));
    return fmt::format("{}", fmt::join(quoted, ", "));
}

// Reads one value for one key; every message begins with the place and the key.
struct ValueReader {
    const std::string& where;
    const std::string& key;
    const Schema::Range& range;
    const std::vector<std::string>& choices;

    [[noreturn]] void refuse_type(const char* wanted, const toml::node& node) const {
        refuse("{}: {} must be {}, not {}", where, key, wanted, found_words(node));
    }

    void check_range(double number) const {
        if (number >= range.least && number <= range.most) return;
        refuse("{}: {} must be {}, not {}", where, key, range_words(range.least, range.most), number);
    }

    void read(const toml::node& node, std::int64_t& field) const {
        if (!node.is_integer()) refuse_type("a whole number", node);
        field = node.as_integer()->get();
        check_range(static_cast<double>(field));
    }

    void read(const toml::node& node, double& field) const {
        if (!node.is_number()) refuse_type("a number", node);
        field = *node.value<double>();
        if (!std::isfinite(field)) refuse_type("a finite number", node);
        check_range(field);
    }

    void read(const toml::node& node, bool& field) const {
        if (!node.is_boolean()) refuse_type("true or false", node);
        field = node.as_boolean()->get();
    }

    void read(const toml::node& node, std::string& field) const {
        if (!node.is_string()) refuse_type("a string", node);
        field = node.as_string()->get();
        if (choices.empty() || std::ranges::find(choices, field) != choices.end()) return;
        refuse("{}: {} must be one of {}, not \"{}\"{}", where, key, choice_words(choices), field, did_you_mean(field, choices));
    }

    template <class Element>
    void read(const toml::node& node, std::vector<Element>& field) const {
        if (!node.is_array()) refuse_type("a list", node);
        field.clear();
        for (const toml::node& element : *node.as_array()) read(element, field.emplace_back());
    }
};

// A key's value and where it stands: "configs/x.toml:12" or "command line".
struct Leaf {
    std::string where;
    const toml::node* node;
};

using TakeLeaf = std::function<void(const std::string& key, const Leaf& leaf)>;

// Calls `take` for every value; tables are descended into unless they are empty or stand where a value should (`is_key`).
void walk(const toml::table& table, const std::string& prefix, const std::string& file,
          const std::function<bool(const std::string&)>& is_key, const TakeLeaf& take) {
    for (const auto& [name, node] : table) {
        const std::string key = prefix + std::string(name.str());
        const toml::table* inner = node.as_table();
        if (inner != nullptr && !inner->empty() && !is_key(key)) {
            walk(*inner, key + ".", file, is_key, take);
        } else {
            take(key, {fmt::format("{}:{}", file, name.source().begin.line), &node});
        }
    }
}

/// For a line `key = word`, which is no TOML: the same with quotes.
std::string quotes_hint(const std::string& text, std::size_t number) {
    std::istringstream lines(text);
    std::string line;
    for (std::size_t i = 0; i < number && std::getline(lines, line); ++i) {
    }
    const std::size_t equals = line.find('=');
    if (equals == line.npos) return "";
    const auto trimmed = [](std::string part) {
        const std::size_t begin = part.find_first_not_of(" \t"), end = part.find_last_not_of(" \t\r");
        return begin == part.npos ? std::string() : part.substr(begin, end - begin + 1);
    };
    const std::string key = trimmed(line.substr(0, equals)), value = trimmed(line.substr(equals + 1, line.find('#', equals) - equals - 1));
    if (key.empty() || value.empty() || value.find_first_of("\"'[]{}=") != value.npos) return "";
    return fmt::format("; text is quoted: {} = \"{}\"", key.substr(0, 100), value.substr(0, 200));
}

toml::table parse_file(const std::filesystem::path& path) {
    const std::string file = path.string();
    std::string text;
    try {
        text = read_text(path, largest_config);
    } catch (const Error& problem) {
        throw UsageError(problem.what());
    }
    try {
        return toml::parse(text, file);
    } catch (const toml::parse_error& problem) {
        refuse("{}:{}: {}{}", file, problem.source().begin.line, problem.description(), quotes_hint(text, problem.source().begin.line));
    }
}

// `x = <value>` as TOML, or nothing when that is no TOML. A value with a line break could smuggle in further keys.
std::optional<toml::table> parse_value(const std::string& value) {
    if (value.find('\n') != std::string::npos) return std::nullopt;
    try {
        return toml::parse("x = " + value);
    } catch (const toml::parse_error&) {
        return std::nullopt;
    }
}

toml::table text_value(const std::string& text) { return toml::table{{"x", text}}; }

// The value of an override. On a command line `a=out/x` means the text, and so does `a=7` where a text is wanted.
toml::table override_value(const std::string& key, const std::string& value, bool wants_text) {
    auto table = parse_value(value);
    if (!table) {
        if (value.find_first_of("\"'[]{}\n") == std::string::npos) return text_value(value);
        refuse("command line: {}: {} is not a value in TOML's syntax; quote it as '{}=\"...\"'", key, value, key);
    }
    const toml::node& node = *table->get("x");
    if (wants_text && node.is_value() && !node.is_string()) return text_value(value);
    return std::move(*table);
}

std::string table_of(const std::string& key) {
    const std::size_t dot = key.rfind('.');
    return dot == std::string::npos ? "" : key.substr(0, dot);
}

const char* type_words(const std::int64_t*) { return "whole number"; }
const char* type_words(const double*) { return "number"; }
const char* type_words(const bool*) { return "true/false"; }
const char* type_words(const std::string*) { return "string"; }
const char* type_words(const std::vector<std::int64_t>*) { return "whole numbers"; }
const char* type_words(const std::vector<double>*) { return "numbers"; }
const char* type_words(const std::vector<std::string>*) { return "strings"; }

}  // namespace

void Schema::bind(Binding binding) {
    binding.default_text = std::visit([](const auto* field) { return json(*field).dump(); }, binding.field);
    binding.stages = stages_;
    bindings_.push_back(std::move(binding));
}

void Schema::number(std::string key, std::int64_t* field, std::string help, Range range) {
    bind({std::move(key), std::move(help), "", field, range, {}});
}

void Schema::number(std::string key, double* field, std::string help, Range range) {
    bind({std::move(key), std::move(help), "", field, range, {}});
}

void Schema::flag(std::string key, bool* field, std::string help, bool affects_result) {
    bind({std::move(key), std::move(help), "", field, {.affects_result = affects_result}, {}});
}

void Schema::text(std::string key, std::string* field, std::string help, std::vector<std::string> choices, bool affects_result) {
    bind({std::move(key), std::move(help), "", field, {.affects_result = affects_result}, std::move(choices)});
}

void Schema::numbers(std::string key, std::vector<std::int64_t>* field, std::string help, Range range) {
    bind({std::move(key), std::move(help), "", field, range, {}});
}

void Schema::numbers(std::string key, std::vector<double>* field, std::string help, Range range) {
    bind({std::move(key), std::move(help), "", field, range, {}});
}

void Schema::texts(std::string key, std::vector<std::string>* field, std::string help, std::vector<std::string> choices) {
    bind({std::move(key), std::move(help), "", field, {}, std::move(choices)});
}

void Schema::read(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
    const auto find = [&](const std::string& key) { return std::ranges::find(bindings_, key, &Binding::key); };
    const auto known = [&](const std::string& key) { return find(key) != bindings_.end(); };
    const auto take = [&](const std::string& key, const Leaf& leaf) {
        const auto binding = find(key);
        const auto in_table = [&](const Binding& each) { return each.key.starts_with(key + "."); };
        const bool empty_table = leaf.node->is_table() && leaf.node->as_table()->empty();
        if (empty_table && std::ranges::any_of(bindings_, in_table)) return;
        if (binding == bindings_.end()) {
            std::vector<std::string> keys;
            for (const auto& each : bindings_) keys.push_back(each.key);
            refuse("{}: unknown key \"{}\"{}", leaf.where, key, did_you_mean(key, keys));
        }
        const ValueReader reader{leaf.where, binding->key, binding->range, binding->choices};
        std::visit([&](auto* field) { reader.read(*leaf.node, *field); }, binding->field);
        binding->source = leaf.where == command_line ? Source::command_line : Source::file;
    };

    const toml::table table = parse_file(path);
    walk(table, "", path.string(), known, take);
    for (const auto& text : overrides) {
        const std::size_t equals = text.find('=');
        if (equals == std::string::npos || equals == 0) refuse("command line: \"{}\" is not of the form key=value", text);
        const std::string key = text.substr(0, equals);
        const bool wants_text = known(key) && std::holds_alternative<std::string*>(find(key)->field);
        const toml::table value = override_value(key, text.substr(equals + 1), wants_text);
        take(key, {command_line, value.get("x")});
    }
}

json Schema::values_where(const std::function<bool(const Binding&)>& chosen) const {
    json all = json::object();
    for (const auto& binding : bindings_) {
        if (!chosen(binding)) continue;
        std::string pointer = "/" + binding.key;
        std::ranges::replace(pointer, '.', '/');
        std::visit([&](const auto* field) { all[json::json_pointer(pointer)] = *field; }, binding.field);
    }
    return all;
}

json Schema::values(bool only_result) const {
    return values_where([&](const Binding& binding) { return !only_result || binding.range.affects_result; });
}

json Schema::values_of(const std::string& stage) const {
    return values_where([&](const Binding& binding) { return binding.range.affects_result && std::ranges::find(binding.stages, stage) != binding.stages.end(); });
}

Schema::Source Schema::source(const std::string& key) const {
    const auto binding = std::ranges::find(bindings_, key, &Binding::key);
    return binding == bindings_.end() ? Source::preset : binding->source;
}

std::string Schema::explain() const {
    std::vector<std::string> tables;  // in the order of binding
    std::size_t key_width = 0, type_width = 0, default_width = 0;
    const auto name_in_table = [](const Binding& binding) {
        const std::string table = table_of(binding.key);
        return table.empty() ? binding.key : binding.key.substr(table.size() + 1);
    };
    const auto type_of = [](const Binding& binding) {
        return std::string(std::visit([](const auto* field) { return type_words(field); }, binding.field));
    };
    for (const auto& binding : bindings_) {
        if (std::ranges::find(tables, table_of(binding.key)) == tables.end()) tables.push_back(table_of(binding.key));
        key_width = std::max(key_width, name_in_table(binding).size());
        type_width = std::max(type_width, type_of(binding).size());
        default_width = std::max(default_width, std::min<std::size_t>(binding.default_text.size(), 24));
    }
    std::string text;
    for (const auto& table : tables) {
        if (!table.empty()) text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", table);
        for (const auto& binding : bindings_) {
            if (table_of(binding.key) != table) continue;
            const auto& [least, most, affects_result] = binding.range;
            const std::string limits =
                binding.choices.empty() ? range_words(least, most) : "one of " + choice_words(binding.choices);
            text += fmt::format("{:<{}}  {:<{}}  {:<{}}  {}{}\n", name_in_table(binding), key_width, type_of(binding), type_width,
                                binding.default_text, default_width, binding.help, limits.empty() ? "" : " (" + limits + ")");
        }
    }
    return text;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& known) {
    const std::string nearest = nearest_word(word, known);
    return nearest.empty() ? "" : fmt::format("; did you mean \"{}\"?", nearest);
}

}  // namespace atelier::core
