#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::server {

inline constexpr std::int64_t largest_integer = std::numeric_limits<std::int64_t>::max();

inline constexpr std::size_t longest_word = 200;     // bytes of a size, a format, a quality
inline constexpr std::size_t longest_name = 1024;    // of a model, which may be called as a folder
inline constexpr std::size_t longest_prompt = 4096;  // bytes; text towers read some 77 tokens
inline constexpr std::size_t any_length =
    std::numeric_limits<std::size_t>::max();  // what the body's limit allows

/// Throws a Refusal with status 400 that names the field.
[[noreturn]] void refuse_field(const std::string& field, const std::string& message, const std::string& code = "invalid_value");

/// A request's body as JSON. Throws a Refusal when it is none.
nlohmann::json json_of_body(std::string_view body);

/// A JSON object of a request. What is wrong with it is a Refusal with status 400 that names the field, behind `prefix`.
class RequestFields {
public:
    /// Refuses what is no object or has a field beside `known`.
    RequestFields(const nlohmann::json& object, std::vector<std::string> known, std::string prefix = "");

    // Nothing where the field is missing or null.
    std::optional<std::int64_t> integer(const std::string& field, std::int64_t least, std::int64_t most) const;
    // Text of at most `longest` bytes: each kind of field has its own limit.
    std::optional<std::string> text(const std::string& field, std::size_t longest) const;
    std::optional<bool> flag(const std::string& field) const;
    const nlohmann::json* array(const std::string& field) const;

    /// The same of a field that must be there.
    std::int64_t needed_integer(const std::string& field, std::int64_t least, std::int64_t most) const;

private:
    const nlohmann::json* given(const std::string& field) const;

    const nlohmann::json& object_;
    std::string prefix_;
};

}  // namespace atelier::server
