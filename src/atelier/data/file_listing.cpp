#include "atelier/data/file_listing.h"

#include <algorithm>

#include "atelier/core/lower_case.h"

namespace atelier::data {

std::string plain_name(std::string_view name) {
    const bool backslashes = name.find('/') == name.npos && name.find('\\') != name.npos;
    std::string out;
    while (!name.empty()) {
        const std::size_t end = name.find(backslashes ? '\\' : '/');
        const std::string_view part = name.substr(0, end);
        if (!part.empty() && part != ".") out.append(out.empty() ? "" : "/").append(part);
        name.remove_prefix(std::min(name.size(), end == name.npos ? name.size() : end + 1));
    }
    return out;
}

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('/') + 1); }

std::string_view folder_part(std::string_view name) { return name.substr(0, name.rfind('/') + 1); }

std::string ending_of(std::string_view name) {
    const std::string_view last = last_part(name);
    const std::size_t dot = last.rfind('.');
    return dot == last.npos ? "" : core::lower_case(last.substr(dot));
}

}  // namespace atelier::data
