#pragma once

#include <string>
#include <string_view>
#include <vector>

/// Unicode functions for CLIP's tokenizer, based on ICU.
namespace atelier::conditions {

/// Code points of UTF-8. Throws core::Error that begins with `where` and names the byte when `text`
/// is not valid UTF-8.
std::u32string code_points(std::string_view text, const std::string& where);

std::string utf8(std::u32string_view text);

/// Composed (NFC), every run of white space one space, lower-cased per character, in this order.
std::u32string normalised(std::string_view text, const std::string& where);

bool is_letter(char32_t c);  // general category L*
bool is_number(char32_t c);  // general category N*
bool is_space(char32_t c);   // property White_Space

}  // namespace atelier::conditions
