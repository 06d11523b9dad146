#include "atelier/cli/class_ids.h"

#include <algorithm>
#include <sstream>

#include "atelier/conditions/class_names.h"
#include "atelier/core/lower_case.h"

namespace atelier::cli {

std::vector<std::int64_t> class_ids(const std::vector<std::string>& arguments,
                                    const std::vector<std::string>& names, std::int64_t classes) {
    std::vector<std::int64_t> ids;
    for (const std::string& argument : arguments) {
        if (std::ranges::find(names, core::lower_case(argument), core::lower_case) != names.end()) {
            ids.push_back(conditions::parse_class(argument, names, classes));
            continue;
        }
        std::istringstream items(argument + ',');
        for (std::string item; std::getline(items, item, ',');) {
            const std::size_t begin = item.find_first_not_of(' '), end = item.find_last_not_of(' ');
            ids.push_back(conditions::parse_class(
                begin == item.npos ? "" : item.substr(begin, end - begin + 1), names, classes));
        }
    }
    return ids;
}

}  // namespace atelier::cli
