#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace atelier::server {

inline constexpr std::int64_t max_integer = std::numeric_limits<std::int64_t>::max();

inline constexpr std::size_t max_word_bytes = 200;     // of a size, format or quality
inline constexpr std::size_t max_name_bytes = 1024;    // of a model, which may be a folder name
inline constexpr std::size_t max_prompt_bytes = 4096;  // text encoders read about 77 tokens
inline constexpr std::size_t unlimited =
    std::numeric_limits<std::size_t>::max();  // limited by the body only

/// Throws HttpError with status 400 that names the field.
[[noreturn]] void reject_field(const std::string& field, const std::string& message,
                               const std::string& code = "invalid_value");

/// Parses a request's body. Throws HttpError with status 400 if it is not JSON.
nlohmann::json json_of_body(std::string_view body);

/// A JSON object of a request. Every error is an HttpError with status 400 that names the field
/// with `prefix` before it.
class RequestFields {
public:
    /// Throws if `object` is not an object or has a field that is not in `known`.
    RequestFields(const nlohmann::json& object, std::vector<std::string> known,
                  std::string prefix = "");

    // These return nullopt (or null) if the field is missing or null, and throw on another type.
    std::optional<std::int64_t> integer(const std::string& field, std::int64_t least,
                                        std::int64_t most) const;
    // Text of at most `max_bytes` bytes.
    std::optional<std::string> text(const std::string& field, std::size_t max_bytes) const;
    std::optional<bool> flag(const std::string& field) const;
    const nlohmann::json* array(const std::string& field) const;

    /// A required field; throws if it is missing.
    std::int64_t required_integer(const std::string& field, std::int64_t least,
                                  std::int64_t most) const;

private:
    const nlohmann::json* given(const std::string& field) const;

    const nlohmann::json& object_;
    std::string prefix_;
};

}  // namespace atelier::server
