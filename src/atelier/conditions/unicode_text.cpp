#include "atelier/conditions/unicode_text.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include "atelier/core/error.h"

namespace atelier::conditions {

namespace {

std::u32string composed(std::string_view text) {
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(status);
    const icu::UnicodeString given = icu::UnicodeString::fromUTF8(
        icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())));
    const icu::UnicodeString result = nfc ? nfc->normalize(given, status) : given;
    if (U_FAILURE(status)) core::fail("ICU cannot compose a prompt: {}", u_errorName(status));
    std::u32string points(static_cast<std::size_t>(result.countChar32()), U'\0');
    result.toUTF32(reinterpret_cast<UChar32*>(points.data()),
                   static_cast<std::int32_t>(points.size()), status);
    return points;
}

}  // namespace

std::u32string code_points(std::string_view text, const std::string& where) {
    constexpr std::size_t longest = 1 << 30;  // ICU lengths have 31 bits
    if (text.size() > longest)
        core::fail("{}: is {} bytes long; at most {} are read", where, text.size(), longest);
    std::u32string points;
    points.reserve(text.size());
    const auto size = static_cast<std::int32_t>(text.size());
    for (std::int32_t i = 0; i < size;) {
        const std::int32_t start = i;
        UChar32 c;
        U8_NEXT(text.data(), i, size, c);  // NOLINT(bugprone-inc-dec-in-conditions) ICU's macro
        if (c < 0) core::fail("{}: is not valid UTF-8 at byte {}; save it as UTF-8", where, start);
        points.push_back(static_cast<char32_t>(c));
    }
    return points;
}

std::string utf8(std::u32string_view text) {
    std::string bytes;
    for (const char32_t c : text) {
        char buffer[U8_MAX_LENGTH];
        std::int32_t length = 0;
        U8_APPEND_UNSAFE(buffer, length, static_cast<UChar32>(c));
        bytes.append(buffer, static_cast<std::size_t>(length));
    }
    return bytes;
}

std::u32string normalised(std::string_view text, const std::string& where) {
    code_points(text, where);  // rejects bytes that ICU would replace
    std::u32string result;
    for (const char32_t c : composed(text)) {
        const bool space = is_space(c);
        if (space && !result.empty() && result.back() == U' ') continue;
        if (space) result.push_back(U' ');
        else if (c == U'\u0130')
            result.append(U"i\u0307");  // the only character whose lower case has two
        else result.push_back(static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
    }
    return result;
}

bool is_letter(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_L_MASK) != 0; }

bool is_number(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_N_MASK) != 0; }

bool is_space(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }

}  // namespace atelier::conditions
