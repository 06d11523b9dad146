#include "atelier/data/passed_over.h"

#include <algorithm>
#include <vector>

#include <fmt/ranges.h>

#include "atelier/core/lower_case.h"
#include "atelier/core/text_encoding.h"

namespace atelier::data {

void PassedOver::add(const std::string& one, const std::string& many, std::string_view name,
                     bool expected) {
    Kind& kind = kinds_[one];
    kind.many = many;
    ++kind.count;
    // An expected entry is named only if there is nothing else to name.
    if (count_ == 0 || (first_expected_ && !expected)) {
        first_ = name;
        first_expected_ = expected;
    }
    ++count_;
    expected_ += expected ? 1 : 0;
}

void PassedOver::add(const PassedOver& others) {
    if (others.count_ == 0) return;
    if (count_ == 0 || (first_expected_ && !others.first_expected_)) {
        first_ = others.first_;
        first_expected_ = others.first_expected_;
    }
    for (const auto& [one, kind] : others.kinds_) {
        kinds_[one].many = kind.many;
        kinds_[one].count += kind.count;
    }
    count_ += others.count_;
    expected_ += others.expected_;
}

void PassedOver::file(std::string_view name) {
    const std::string_view last = name.substr(name.rfind('/') + 1);
    const std::size_t dot = last.rfind('.');
    const std::string ending = dot == last.npos || last.size() - dot > 16
                                   ? ""
                                   : core::printable(core::lower_case(last.substr(dot)));
    if (ending.empty() || ending == ".")
        add("file without an extension", "files without an extension", name);
    else add(ending, ending, name);
}

std::string PassedOver::summary() const {
    std::vector<std::pair<std::string, std::int64_t>> kinds;
    for (const auto& [one, kind] : kinds_)
        kinds.emplace_back(kind.count == 1 ? one : kind.many, kind.count);
    std::ranges::stable_sort(kinds, std::greater{}, &std::pair<std::string, std::int64_t>::second);
    std::vector<std::string> parts;
    constexpr std::size_t most = 12;
    for (std::size_t i = 0; i < std::min(most, kinds.size()); ++i)
        parts.push_back(fmt::format("{} {}", kinds[i].second, kinds[i].first));
    if (kinds.size() > most) parts.push_back("others");
    return fmt::format("{} {} passed over ({}), the first: {}", count_,
                       count_ == 1 ? "entry" : "entries", fmt::join(parts, ", "),
                       core::printable(first_));
}

bool is_hidden_name(std::string_view name) {
    while (!name.empty()) {
        const std::size_t slash = name.find('/');
        const std::string_view part = name.substr(0, slash);
        if (part.starts_with('.') || part == "__MACOSX") return true;
        if (slash == name.npos) {
            const std::string lower = core::lower_case(part);
            return lower == "thumbs.db" || lower == "desktop.ini";
        }
        name.remove_prefix(slash + 1);
    }
    return false;
}

}  // namespace atelier::data
