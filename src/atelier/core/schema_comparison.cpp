#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "atelier/core/schema.h"

#include <fmt/format.h>

namespace atelier::core {

using nlohmann::json;

namespace {

using Leaves = std::map<std::string, std::string>;

void collect_leaves(const json& value, const std::string& key, Leaves& leaves) {
    if (!value.is_object()) {
        leaves[key] = value.dump();
        return;
    }
    for (const auto& [name, inner] : value.items())
        collect_leaves(inner, key.empty() ? name : key + "." + name, leaves);
}

/// The number that a leaf is, or that it quotes.
std::optional<double> number_of(std::string_view leaf) {
    if (leaf.size() > 2 && leaf.front() == '"' && leaf.back() == '"')
        leaf = leaf.substr(1, leaf.size() - 2);
    double number = 0;
    const char* const end = leaf.data() + leaf.size();
    const auto [stop, problem] = std::from_chars(leaf.data(), end, number);
    if (problem != std::errc() || stop != end) return std::nullopt;
    return number;
}

/// Whether a recorded leaf is the present one; it may quote what is a number now.
bool is_same_leaf(const std::string& recorded, const std::string& now) {
    if (recorded == now) return true;
    if (!recorded.starts_with('"') || now.starts_with('"')) return false;
    const auto number = number_of(recorded);
    return number && number == number_of(now);
}

}  // namespace

std::vector<std::string> differences(const json& before, const json& after) {
    Leaves old_leaves, new_leaves;
    collect_leaves(before, "", old_leaves);
    collect_leaves(after, "", new_leaves);
    std::set<std::string> keys;
    for (const auto& [key, value] : old_leaves) keys.insert(key);
    for (const auto& [key, value] : new_leaves) keys.insert(key);
    const auto text_of = [](const Leaves& leaves, const std::string& key) {
        const auto found = leaves.find(key);
        return found == leaves.end() ? std::string("(absent)") : found->second;
    };
    std::vector<std::string> lines;
    for (const auto& key : keys) {
        const std::string was = text_of(old_leaves, key), is = text_of(new_leaves, key);
        if (was != is) lines.push_back(fmt::format("{}: {} -> {}", key, was, is));
    }
    return lines;
}

std::vector<std::string> changed_since(const json& recorded, const json& now,
                                       const json& defaults) {
    Leaves before, after, otherwise;
    collect_leaves(recorded, "", before);
    collect_leaves(now, "", after);
    collect_leaves(defaults, "", otherwise);
    std::vector<std::string> lines;
    for (const auto& [key, is] : after) {
        const auto was = before.find(key);
        if (was != before.end()) {
            if (!is_same_leaf(was->second, is))
                lines.push_back(fmt::format("{}: {} -> {}", key, was->second, is));
            continue;
        }
        const std::size_t dot = key.find('.');
        const bool tied = dot == std::string::npos || recorded.contains(key.substr(0, dot));
        const auto preset = otherwise.find(key);
        if (tied && (preset == otherwise.end() || preset->second != is))
            lines.push_back(fmt::format("{}: (absent) -> {}", key, is));
    }
    return lines;
}

namespace {

// Levenshtein distance, one row of the table at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i + 1);
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
        }
    }
    return row.back();
}

}  // namespace

std::string nearest_word(std::string_view word, const std::vector<std::string>& known) {
    std::string nearest;
    std::size_t distance = std::max<std::size_t>(2, word.size() / 3) +
                           1;  // beyond a third of the letters it is not a typo
    for (const auto& candidate : known) {
        const std::size_t here = edit_distance(word.substr(0, 200), candidate);
        if (here >= distance || here >= candidate.size()) continue;
        distance = here;
        nearest = candidate;
    }
    return nearest;
}

}  // namespace atelier::core
