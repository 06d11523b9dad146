#include "atelier/server/request_fields.h"

#include <algorithm>
#include <cmath>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/schema.h"
#include "atelier/server/http.h"

namespace atelier::server {

namespace {

using nlohmann::json;

/// An integer written as a float, as JavaScript does: 1.0 is 1. Nullopt from 2^53 on, which may be
/// a larger number rounded.
std::optional<std::int64_t> whole_number(const json& value) {
    constexpr double exact = 9007199254740992.0;  // 2^53
    if (!value.is_number_float()) return std::nullopt;
    const double number = value.get<double>();
    if (std::abs(number) >= exact || number != std::floor(number)) return std::nullopt;
    return static_cast<std::int64_t>(number);
}

}  // namespace

void reject_field(const std::string& field, const std::string& message, const std::string& code) {
    throw HttpError(400, message, field, code);
}

json json_of_body(std::string_view body) {
    try {
        return core::parse_json(body, "the request's body");
    } catch (const core::Error& error) {
        throw HttpError(400, error.what(), "", "invalid_json");
    }
}

RequestFields::RequestFields(const json& object, std::vector<std::string> known, std::string prefix)
    : object_(object), prefix_(std::move(prefix)) {
    if (!object.is_object()) {
        const std::string what = prefix_.substr(0, prefix_.find_last_of('.'));
        reject_field(what,
                     fmt::format("{} must be a JSON object, not {}",
                                 what.empty() ? "the request's body" : what, object.type_name()),
                     "invalid_type");
    }
    for (const auto& [field, value] : object.items()) {
        if (std::ranges::find(known, field) != known.end()) continue;
        const std::string shown = field.substr(0, max_word_bytes);
        reject_field(prefix_ + shown,
                     fmt::format("there is no field \"{}\"{}", prefix_ + shown,
                                 core::did_you_mean(shown, known)),
                     "unknown_parameter");
    }
}

/// Clients may write null for fields they leave out.
const json* RequestFields::given(const std::string& field) const {
    const auto found = object_.find(field);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::int64_t> RequestFields::integer(const std::string& field, std::int64_t least,
                                                   std::int64_t most) const {
    const json* value = given(field);
    if (value == nullptr) return std::nullopt;
    const std::string name = prefix_ + field;
    const auto whole =
        value->is_number_integer() ? value->get<std::int64_t>() : whole_number(*value);
    if (!whole) {
        const std::string what = value->is_number() ? value->dump() : value->type_name();
        reject_field(name, fmt::format("\"{}\" must be a whole number, not {}", name, what),
                     "invalid_type");
    }
    const bool huge = value->is_number_unsigned() &&
                      value->get<std::uint64_t>() > static_cast<std::uint64_t>(max_integer);
    if (huge || *whole < least || *whole > most) {
        reject_field(name, fmt::format("\"{}\" is {}; it must be from {} to {}", name,
                                       value->dump(), least, most));
    }
    return whole;
}

std::int64_t RequestFields::required_integer(const std::string& field, std::int64_t least,
                                             std::int64_t most) const {
    if (const auto value = integer(field, least, most)) return *value;
    reject_field(prefix_ + field, fmt::format("\"{}\" is missing", prefix_ + field),
                 "missing_required_parameter");
}

std::optional<std::string> RequestFields::text(const std::string& field,
                                               std::size_t max_bytes) const {
    const json* value = given(field);
    if (value == nullptr) return std::nullopt;
    const std::string name = prefix_ + field;
    if (!value->is_string())
        reject_field(name, fmt::format("\"{}\" must be text, not {}", name, value->type_name()),
                     "invalid_type");
    auto result = value->get<std::string>();
    if (result.size() > max_bytes)
        reject_field(name, fmt::format("\"{}\" has {} bytes; at most {} are read", name,
                                       result.size(), max_bytes));
    return result;
}

std::optional<bool> RequestFields::flag(const std::string& field) const {
    const json* value = given(field);
    if (value == nullptr) return std::nullopt;
    const std::string name = prefix_ + field;
    if (!value->is_boolean())
        reject_field(name,
                     fmt::format("\"{}\" must be true or false, not {}", name, value->type_name()),
                     "invalid_type");
    return value->get<bool>();
}

const json* RequestFields::array(const std::string& field) const {
    const json* value = given(field);
    const std::string name = prefix_ + field;
    if (value != nullptr && !value->is_array())
        reject_field(name, fmt::format("\"{}\" must be a list, not {}", name, value->type_name()),
                     "invalid_type");
    return value;
}

}  // namespace atelier::server
