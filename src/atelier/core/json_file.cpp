#include "atelier/core/json_file.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"

namespace atelier::core {

using nlohmann::json;

namespace {

constexpr std::size_t deepest = 64;
constexpr std::size_t largest_file = std::size_t{64} << 20;

/// Placeholder strings for the numbers that JSON cannot express. They contain NUL, which the parsed
/// text does not.
const std::map<std::string, double>& non_finite_stand_ins() {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    static const std::map<std::string, double> all{
        {std::string("\0N", 2), std::numeric_limits<double>::quiet_NaN()},
        {std::string("\0I", 2), infinity},
        {std::string("\0M", 2), -infinity}};
    return all;
}

/// The text with NaN, Infinity and -Infinity in value positions replaced by the placeholders.
std::string without_non_finite(std::string_view text) {
    static constexpr std::pair<std::string_view, std::string_view> words[] = {
        {"NaN", "\"\\u0000N\""}, {"Infinity", "\"\\u0000I\""}, {"-Infinity", "\"\\u0000M\""}};
    constexpr std::string_view spaces = " \t\r\n";
    std::string out;
    bool quoted = false;
    char before = ':';  // the last non-space character; a value may come first
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quoted) {
            out += c;
            if (c == '\\' && i + 1 < text.size()) out += text[++i];
            else if (c == '"') quoted = false;
            before = '"';
            continue;
        }
        const auto* word = std::ranges::find_if(
            words, [&](const auto& one) { return text.substr(i).starts_with(one.first); });
        if ((before == ':' || before == ',' || before == '[') && word != std::end(words)) {
            const std::size_t next = text.find_first_not_of(spaces, i + word->first.size());
            if (next == text.npos || text[next] == ',' || text[next] == ']' || text[next] == '}') {
                out += word->second;
                i += word->first.size() - 1;
                before = '"';
                continue;
            }
        }
        out += c;
        quoted = c == '"';
        if (spaces.find(c) == spaces.npos) before = c;
    }
    return out;
}

// Builds a value from the events of the parser (which keeps its own stack) and rejects what the
// library would accept: deep nesting, on which later recursion could overflow, and duplicate keys,
// which readers interpret differently.
class CheckedBuilder : public json::json_sax_t {
public:
    CheckedBuilder(const std::string& where, bool non_finite)
        : where_(where), non_finite_(non_finite) {}

    bool null() override { return put(nullptr); }
    bool boolean(bool value) override { return put(value); }
    bool number_integer(json::number_integer_t value) override { return put(value); }
    bool number_unsigned(json::number_unsigned_t value) override { return put(value); }
    bool number_float(json::number_float_t value, const std::string&) override {
        return put(value);
    }
    bool string(std::string& value) override {
        const auto number = non_finite_stand_ins().find(value);
        return non_finite_ && number != non_finite_stand_ins().end() ? put(number->second)
                                                                     : put(std::move(value));
    }
    bool binary(json::binary_t&) override { return false; }
    bool start_object(std::size_t) override { return open(json::object()); }
    bool start_array(std::size_t) override { return open(json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }

    bool key(std::string& name) override {
        if (open_.back()->contains(name))
            fail("{}: the key \"{}\" appears twice; remove one", where_, name.substr(0, 200));
        key_ = std::move(name);
        return true;
    }

    bool parse_error(std::size_t, const std::string&, const json::exception& problem) override {
        // The library's text is "[name] parse error at <place>: <what>; last read: <as long as the
        // input>".
        const std::string text = problem.what();
        const std::size_t first = text.find("] ") + 2;
        fail("{}: is not valid JSON: {}", where_,
             text.substr(first, std::min<std::size_t>(text.find("; last read") - first, 200)));
    }

    json take() { return std::move(root_); }

private:
    json* insert(json value) {
        if (open_.empty()) return &(root_ = std::move(value));
        json& parent = *open_.back();
        if (!parent.is_array()) return &(parent[key_] = std::move(value));
        parent.push_back(std::move(value));
        return &parent.back();
    }

    bool put(json value) { return insert(std::move(value)) != nullptr; }

    bool open(json container) {
        if (open_.size() == deepest)
            fail("{}: is nested more than {} levels deep", where_, deepest);
        open_.push_back(insert(std::move(container)));
        return true;
    }

    bool close() {
        open_.pop_back();
        return true;
    }

    const std::string& where_;
    bool non_finite_;
    json root_;
    std::vector<json*> open_;
    std::string key_;
};

template <class... Args>
[[noreturn]] void fail_at(const JsonObject& object, const std::string& key,
                          fmt::format_string<Args...> text, Args&&... args) {
    fail("{}: \"{}\" {}", object.where(), key, fmt::format(text, std::forward<Args>(args)...));
}

bool fits_int64(const json& value) {
    if (!value.is_number_integer()) return false;
    return !value.is_number_unsigned() ||
           value.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()};
}

std::int64_t checked_integer(const JsonObject& object, const std::string& key, const json& value,
                             std::int64_t min, std::int64_t max) {
    if (!fits_int64(value))
        fail_at(object, key, "must be a whole number, not {}", value.type_name());
    const auto number = value.get<std::int64_t>();
    if (number < min || number > max)
        fail_at(object, key, "is {}; it must be from {} to {}", number, min, max);
    return number;
}

double checked_number(const JsonObject& object, const std::string& key, const json& value,
                      double min, double max) {
    if (!value.is_number()) fail_at(object, key, "must be a number, not {}", value.type_name());
    const auto number = value.get<double>();
    if (!(number >= min && number <= max))
        fail_at(object, key, "is {}; it must be from {} to {}", number, min, max);
    return number;
}

const json::array_t& checked_list(const JsonObject& object, const std::string& key,
                                  const json& value) {
    if (!value.is_array()) fail_at(object, key, "must be a list, not {}", value.type_name());
    return value.get_ref<const json::array_t&>();
}

std::string checked_text(const JsonObject& object, const std::string& key, const json& value) {
    if (!value.is_string()) fail_at(object, key, "must be text, not {}", value.type_name());
    return value.get<std::string>();
}

}  // namespace

json parse_json(std::string_view text, const std::string& where, NonFinite policy) {
    // The library treats NUL as the end of the text and would ignore what follows.
    if (text.find('\0') != std::string_view::npos)
        fail("{}: is not valid JSON: there is a NUL byte in it", where);
    const bool mentioned = text.find("NaN") != text.npos || text.find("Infinity") != text.npos;
    const bool non_finite =
        policy == NonFinite::accept && mentioned && text.find("\\u0000") == text.npos;
    const std::string replaced = non_finite ? without_non_finite(text) : "";
    if (non_finite) text = replaced;
    CheckedBuilder builder(where, non_finite);
    json::sax_parse(text.begin(), text.end(), &builder);
    return builder.take();
}

std::string json_text(const json& value, int indent) {
    return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

json read_json(const std::filesystem::path& path) {
    return parse_json(read_text(path, largest_file), path.string(), NonFinite::accept);
}

void write_json(const std::filesystem::path& path, const json& value) {
    write_text(path, json_text(value, 2) + '\n');
}

JsonObject::JsonObject(const nlohmann::json& value, std::string where)
    : value_(&value), where_(std::move(where)) {
    if (!value.is_object()) fail("{}: must be a JSON object, not {}", where_, value.type_name());
}

bool JsonObject::has(const std::string& key) const { return value_->contains(key); }

const nlohmann::json& JsonObject::at(const std::string& key) const {
    if (!has(key)) fail_at(*this, key, "is missing");
    return value_->find(key).value();
}

std::int64_t JsonObject::integer(const std::string& key, std::int64_t min, std::int64_t max) const {
    return checked_integer(*this, key, at(key), min, max);
}

std::int64_t JsonObject::integer_or(const std::string& key, std::int64_t fallback, std::int64_t min,
                                    std::int64_t max) const {
    return has(key) ? integer(key, min, max) : fallback;
}

double JsonObject::number(const std::string& key, double min, double max) const {
    return checked_number(*this, key, at(key), min, max);
}

double JsonObject::number_or(const std::string& key, double fallback, double min,
                             double max) const {
    return has(key) ? number(key, min, max) : fallback;
}

std::string JsonObject::text(const std::string& key) const {
    return checked_text(*this, key, at(key));
}

std::string JsonObject::text_or(const std::string& key, const std::string& fallback) const {
    return has(key) ? text(key) : fallback;
}

std::vector<std::int64_t> JsonObject::integers(const std::string& key, std::int64_t min,
                                               std::int64_t max) const {
    std::vector<std::int64_t> list;
    for (const nlohmann::json& value : checked_list(*this, key, at(key)))
        list.push_back(checked_integer(*this, key, value, min, max));
    return list;
}

std::vector<double> JsonObject::numbers(const std::string& key) const {
    constexpr double any = std::numeric_limits<double>::max();
    std::vector<double> list;
    for (const nlohmann::json& value : checked_list(*this, key, at(key)))
        list.push_back(checked_number(*this, key, value, -any, any));
    return list;
}

std::vector<std::string> JsonObject::texts(const std::string& key) const {
    std::vector<std::string> list;
    for (const nlohmann::json& value : checked_list(*this, key, at(key)))
        list.push_back(checked_text(*this, key, value));
    return list;
}

JsonObject JsonObject::object(const std::string& key) const {
    const nlohmann::json& value = at(key);
    if (!value.is_object()) fail_at(*this, key, "must be an object, not {}", value.type_name());
    return {value, where_ + ": " + key};
}

}  // namespace atelier::core
