#include "atelier/data/caption_metadata.h"

#include <algorithm>
#include <array>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/text_encoding.h"

namespace atelier::data {

namespace {

constexpr std::array<const char*, 4> caption_keys{"text", "caption", "prompt", "description"};

/// The text of the first key that has one; the first element of a list.
const std::string* caption_under_keys(const nlohmann::json& object) {
    for (const char* key : caption_keys) {
        const auto found = object.find(key);
        if (found == object.end()) continue;
        const nlohmann::json& value =
            found->is_array() && !found->empty() ? found->front() : *found;
        if (value.is_string()) return value.get_ptr<const std::string*>();
    }
    return nullptr;
}

/// The records of a CSV table (RFC 4180): fields separated by commas, optionally in double quotes,
/// which may contain line ends and doubled quotes.
class CsvReader {
public:
    CsvReader(std::string_view text, const std::string& where) : rest_(text), where_(where) {}

    std::int64_t line() const { return begun_at_; }

    /// The next record; empty at the end. Skips empty lines.
    std::vector<std::string> next() {
        while (!rest_.empty() && (rest_.front() == '\n' || rest_.front() == '\r')) skip();
        begun_at_ = line_;
        std::vector<std::string> fields;
        while (!rest_.empty()) {
            fields.push_back(field());
            if (rest_.empty() || rest_.front() != ',') break;
            rest_.remove_prefix(1);
            if (rest_.empty() || rest_.front() == '\n' || rest_.front() == '\r') {
                fields.emplace_back();
                break;
            }
        }
        return fields;
    }

private:
    void skip() {
        if (rest_.front() == '\n') ++line_;
        rest_.remove_prefix(1);
    }

    std::string field() {
        if (rest_.empty() || rest_.front() != '"') {
            const std::string_view plain = rest_.substr(0, rest_.find_first_of(",\r\n"));
            rest_.remove_prefix(plain.size());
            return std::string(plain);
        }
        rest_.remove_prefix(1);
        std::string value;
        while (true) {
            const std::size_t quote = rest_.find('"');
            if (quote == rest_.npos)
                core::fail("{}:{}: a quotation mark is not closed", where_, begun_at_);
            value += rest_.substr(0, quote);
            line_ += std::ranges::count(rest_.substr(0, quote), '\n');
            rest_.remove_prefix(quote + 1);
            if (!rest_.starts_with('"')) break;
            value += '"';
            rest_.remove_prefix(1);
        }
        if (!rest_.empty() &&
            std::string_view(",\r\n").find(rest_.front()) == std::string_view::npos)
            core::fail("{}:{}: there is text behind a closing quotation mark", where_, line_);
        return value;
    }

    std::string_view rest_;
    const std::string& where_;
    std::int64_t line_ = 1, begun_at_ = 1;
};

/// The column of the first of `names` that is in the header row; npos: none.
template <class Names>
std::size_t column_of(const std::vector<std::string>& head, const Names& names) {
    for (const auto& name : names) {
        const auto found = std::ranges::find_if(
            head, [&](const std::string& title) { return core::lower_case(title) == name; });
        if (found != head.end()) return static_cast<std::size_t>(found - head.begin());
    }
    return std::string::npos;
}

}  // namespace

std::vector<CaptionLine> caption_lines_of_json(std::string_view text, const std::string& where) {
    std::vector<CaptionLine> lines;
    text = core::without_byte_order_mark(text, where);
    for (std::int64_t number = 1; !text.empty(); ++number) {
        const std::size_t end = text.find('\n');
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end == text.npos ? text.size() : end + 1);
        if (line.find_first_not_of(" \t\r") == line.npos) continue;
        const std::string location = fmt::format("{}:{}", where, number);
        core::check_utf8(line, location);
        const nlohmann::json object = core::parse_json(line, location);
        const bool named =
            object.is_object() && object.contains("file_name") && object["file_name"].is_string();
        const std::string* caption = named ? caption_under_keys(object) : nullptr;
        if (caption == nullptr && lines.empty()) return {};
        if (!named) core::fail("{}: has no \"file_name\"", location);
        if (caption == nullptr)
            core::fail("{}: has no \"text\" (nor \"caption\", \"prompt\", \"description\")",
                       location);
        lines.push_back({object["file_name"].get<std::string>(),
                         checked_caption(*caption, location), location});
    }
    return lines;
}

std::vector<CaptionLine> caption_lines_of_csv(std::string_view text, const std::string& where) {
    text = core::without_byte_order_mark(text, where);
    CsvReader reader(text, where);
    const std::vector<std::string> head = reader.next();
    const std::size_t name = column_of(head, std::array{"file_name"}),
                      caption = column_of(head, caption_keys);
    std::vector<CaptionLine> lines;
    if (name == std::string::npos || caption == std::string::npos) return lines;
    for (auto fields = reader.next(); !fields.empty(); fields = reader.next()) {
        const std::string location = fmt::format("{}:{}", where, reader.line());
        if (fields.size() != head.size())
            core::fail("{}: has {} fields, the first line {}", location, fields.size(),
                       head.size());
        lines.push_back({fields[name], checked_caption(fields[caption], location), location});
    }
    return lines;
}

std::string caption_in_json(std::string_view text, const std::string& where) {
    const nlohmann::json object =
        core::parse_json(core::without_byte_order_mark(text, where), where);
    const std::string* caption = object.is_object() ? caption_under_keys(object) : nullptr;
    return caption != nullptr ? checked_caption(*caption, where) : "";
}

std::string checked_caption(std::string_view text, const std::string& where) {
    constexpr std::size_t longest = 64 << 10;
    if (text.size() > longest)
        core::fail("{}: is {} bytes long; a caption has at most {}", where, text.size(), longest);
    text = core::without_byte_order_mark(text, where);
    core::check_utf8(text, where);
    constexpr std::string_view space = " \t\r\n";
    const std::size_t first = text.find_first_not_of(space);
    return first == text.npos
               ? ""
               : std::string(text.substr(first, text.find_last_not_of(space) + 1 - first));
}

}  // namespace atelier::data
