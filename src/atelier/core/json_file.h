#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::core {

/// Whether the non-finite literals of Python (NaN, Infinity, -Infinity) are accepted as values: its
/// json module, and therefore diffusers, writes them.
enum class NonFinite { reject, accept };

/// Parses JSON from outside: at most 64 levels deep, no duplicate keys, valid UTF-8. Throws Error
/// that begins with `where`.
nlohmann::json parse_json(std::string_view text, const std::string& where,
                          NonFinite policy = NonFinite::reject);

/// Reads a JSON file of at most 64 MB, NaN and infinities included. Throws Error naming the file.
nlohmann::json read_json(const std::filesystem::path& path);

/// `value` as JSON, on one line unless `indent` is given. Bytes of strings that are not UTF-8
/// become U+FFFD; text is validated where it enters, and this is only the last safeguard.
std::string json_text(const nlohmann::json& value, int indent = -1);

/// Writes indented JSON with a final newline, atomically.
void write_json(const std::filesystem::path& path, const nlohmann::json& value);

/// A checked view of a JSON object read from outside: each getter throws Error naming file and key
/// when the key is missing, of another type, or out of range.
class JsonObject {
public:
    /// `where` names the file in messages. Throws Error when `value` is not an object.
    JsonObject(const nlohmann::json& value, std::string where);

    bool has(const std::string& key) const;
    std::int64_t integer(const std::string& key, std::int64_t min, std::int64_t max) const;
    std::int64_t integer_or(const std::string& key, std::int64_t fallback, std::int64_t min,
                            std::int64_t max) const;
    double number(const std::string& key, double min, double max) const;
    double number_or(const std::string& key, double fallback, double min, double max) const;
    std::string text(const std::string& key) const;
    std::string text_or(const std::string& key, const std::string& fallback) const;
    std::vector<std::int64_t> integers(const std::string& key, std::int64_t min,
                                       std::int64_t max) const;
    std::vector<double> numbers(const std::string& key) const;
    std::vector<std::string> texts(const std::string& key) const;
    JsonObject object(const std::string& key) const;
    const nlohmann::json& json() const { return *value_; }
    const std::string& where() const { return where_; }

private:
    const nlohmann::json& at(const std::string& key) const;
    const nlohmann::json* value_;
    std::string where_;
};

}  // namespace atelier::core
