#include "atelier/conditions/class_names.h"

#include <algorithm>
#include <ranges>

#include "atelier/core/error.h"
#include "atelier/core/lower_case.h"
#include "atelier/core/schema.h"
#include "atelier/core/whole_number.h"

namespace atelier::conditions {

namespace {

constexpr std::size_t names_listed = 20;

std::string list_of(const std::vector<std::string>& names) {
    std::string list;
    for (const std::string& name : names | std::views::take(names_listed))
        list += (list.empty() ? "" : ", ") + name;
    return list + (names.size() > names_listed ? ", ..." : "");
}

}  // namespace

std::int64_t parse_class(const std::string& word, const std::vector<std::string>& names,
                         std::int64_t classes) {
    const auto named = std::ranges::find(names, core::lower_case(word), core::lower_case);
    if (named != names.end()) return named - names.begin();
    const auto id = core::whole_number(word);
    if (id && *id >= 0 && *id < classes) return *id;
    const std::string known = names.empty() ? "" : ", or its name (" + list_of(names) + ")";
    throw core::UsageError(
        fmt::format("this model has no class \"{}\"{}; a class is given by its id, 0 to {}{}", word,
                    core::did_you_mean(core::lower_case(word), names), classes - 1, known));
}

}  // namespace atelier::conditions
