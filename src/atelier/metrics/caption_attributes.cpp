#include "atelier/metrics/caption_attributes.h"

#include <algorithm>
#include <set>

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/lower_case.h"

namespace atelier::metrics {

namespace {

constexpr std::size_t max_attributes = 100, max_values = 10000, max_phrases = 1000,
                      max_groups = 10000, max_paraphrases = 1000;

/// Whether `text` contains `phrase` as whole words: with neither a letter (any byte of one outside
/// ASCII), a digit nor a hyphen next to it. Both in lower case.
bool contains_phrase(std::string_view text, std::string_view phrase) {
    const auto joins = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
               static_cast<unsigned char>(c) >= 0x80;
    };
    for (std::size_t at = text.find(phrase); at != text.npos; at = text.find(phrase, at + 1)) {
        const std::size_t end = at + phrase.size();
        if ((at == 0 || !joins(text[at - 1])) && (end == text.size() || !joins(text[end])))
            return true;
    }
    return false;
}

/// The phrases of each class, in lower case.
std::vector<std::vector<std::string>> read_phrases(const core::JsonObject& attribute) {
    const auto& values = attribute.json().find("values");
    if (values == attribute.json().end() || !values->is_array() || values->size() < 2 ||
        values->size() > max_values)
        core::fail("{}: \"values\" must be a list of 2 to {} lists of phrases, one per class",
                   attribute.where(), max_values);
    std::vector<std::vector<std::string>> phrases;
    std::set<std::string> seen;
    for (const nlohmann::json& value : *values) {
        if (!value.is_array() || value.empty() || value.size() > max_phrases)
            core::fail("{}: value {} must be a list of 1 to {} phrases", attribute.where(),
                       phrases.size(), max_phrases);
        phrases.emplace_back();
        for (const nlohmann::json& phrase : value) {
            if (!phrase.is_string() || phrase.get_ref<const std::string&>().empty())
                core::fail("{}: value {} must hold phrases that are not empty", attribute.where(),
                           phrases.size() - 1);
            const std::string text = core::lower_case(phrase.get_ref<const std::string&>());
            if (!seen.insert(text).second)
                core::fail("{}: the phrase \"{}\" stands for two values", attribute.where(), text);
            phrases.back().push_back(text);
        }
    }
    return phrases;
}

std::vector<CaptionAttribute> attributes_in(const nlohmann::json& json,
                                            const std::filesystem::path& file) {
    const auto list = json.find("attributes");
    if (list == json.end() || !list->is_array() || list->empty() || list->size() > max_attributes)
        core::fail("{}: \"attributes\" must be a list of 1 to {} attributes", file.string(),
                   max_attributes);
    std::vector<CaptionAttribute> attributes;
    std::set<std::string> names;
    for (std::size_t i = 0; i < list->size(); ++i) {
        const core::JsonObject one((*list)[i], fmt::format("{}: attribute {}", file.string(), i));
        const std::string name = one.text("name");
        if (name.empty() || !names.insert(name).second)
            core::fail("{}: its name \"{}\" is {}; give each attribute a name of its own",
                       one.where(), name, name.empty() ? "empty" : "another's, too");
        auto phrases = read_phrases(one);
        const auto classes = static_cast<std::int64_t>(phrases.size());
        attributes.push_back({name,
                              [phrases = std::move(phrases)](std::string_view caption) {
                                  return class_of_phrases(phrases, caption);
                              },
                              classes, file.parent_path() / one.text("classifier")});
    }
    return attributes;
}

std::vector<std::vector<std::string>> paraphrases_in(const nlohmann::json& json,
                                                     const std::filesystem::path& file) {
    const auto list = json.find("paraphrases");
    if (list == json.end()) return {};
    const auto is_group = [](const nlohmann::json& group) {
        return group.is_array() && group.size() >= 2 && group.size() <= max_paraphrases &&
               std::ranges::all_of(group, [](const auto& one) { return one.is_string(); });
    };
    if (!list->is_array() || list->size() > max_groups || !std::ranges::all_of(*list, is_group))
        core::fail(
            "{}: \"paraphrases\" must be a list of up to {} lists of 2 to {} captions that say the "
            "same",
            file.string(), max_groups, max_paraphrases);
    return list->get<std::vector<std::vector<std::string>>>();
}

}  // namespace

std::optional<std::int64_t> class_of_phrases(const std::vector<std::vector<std::string>>& phrases,
                                             std::string_view caption) {
    const std::string text = core::lower_case(caption);
    std::vector<std::pair<std::string_view, std::int64_t>> found;
    for (std::size_t k = 0; k < phrases.size(); ++k) {
        for (const std::string& phrase : phrases[k]) {
            if (contains_phrase(text, phrase))
                found.emplace_back(phrase, static_cast<std::int64_t>(k));
        }
    }
    std::set<std::int64_t> classes;
    for (const auto& [phrase, k] : found) {
        const bool part_of_another = std::ranges::any_of(found, [&](const auto& other) {
            return other.first.size() > phrase.size() && contains_phrase(other.first, phrase);
        });
        if (!part_of_another) classes.insert(k);
    }
    return classes.size() == 1 ? std::optional(*classes.begin()) : std::nullopt;
}

CaptionAttributes read_caption_attributes(const std::filesystem::path& file) {
    const nlohmann::json json = core::read_json(file);
    const core::JsonObject top(json, file.string());  // refuses what is no object
    return {attributes_in(top.json(), file), paraphrases_in(top.json(), file)};
}

}  // namespace atelier::metrics
