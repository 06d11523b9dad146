#include "atelier/cli/class_words.h"

#include <algorithm>
#include <sstream>

#include "atelier/conditions/class_names.h"
#include "atelier/core/lower_case.h"

namespace atelier::cli {

std::vector<std::int64_t> class_ids(const std::vector<std::string>& words, const std::vector<std::string>& names, std::int64_t classes) {
    std::vector<std::int64_t> ids;
    for (const std::string& word : words) {
        if (std::ranges::find(names, core::lower_case(word), core::lower_case) != names.end()) {
            ids.push_back(conditions::class_named(word, names, classes));
            continue;
        }
        std::istringstream parts(word + ',');
        for (std::string part; std::getline(parts, part, ',');) {
            const std::size_t begin = part.find_first_not_of(' '), end = part.find_last_not_of(' ');
            ids.push_back(conditions::class_named(begin == part.npos ? "" : part.substr(begin, end - begin + 1), names, classes));
        }
    }
    return ids;
}

}  // namespace atelier::cli
