#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

/// Encodings of text from outside: UTF-8, or those of older programs.
namespace atelier::core {

/// Position of the first byte that is not UTF-8 (overlong forms and surrogates are not), or
/// nothing.
std::optional<std::size_t> first_bad_byte(std::string_view text);

/// Throws Error that begins with `where` and names the byte when `text` is not UTF-8.
void check_utf8(std::string_view text, const std::string& where);

/// `text` without the UTF-8 byte order mark that some editors write first. Throws Error that begins
/// with `where` when the mark is UTF-16's or UTF-32's.
std::string_view without_byte_order_mark(std::string_view text, const std::string& where);

/// Conversions to UTF-8: from code page 437, in which zip archives write names unless they say
/// otherwise, and from Latin-1 (ISO 8859-1).
std::string from_cp437(std::string_view text);
std::string from_latin1(std::string_view text);

/// For messages: bytes that are not UTF-8, and control characters, become \x and two digits.
std::string printable(std::string_view text);

}  // namespace atelier::core
