#include "atelier/data/dataset_json.h"

#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/text_encoding.h"
#include "atelier/core/whole_number.h"
#include "atelier/data/file_listing.h"

namespace atelier::data {

namespace {

std::pair<std::string, std::int64_t> label_of(const nlohmann::json& pair,
                                              const std::string& where) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() ||
        !pair[1].is_number_integer()) {
        core::fail("{}: a label is {}; expected [\"name of an image\", class]", where,
                   core::json_text(pair).substr(0, 100));
    }
    return {plain_name(pair[0].get<std::string>()), pair[1].get<std::int64_t>()};
}

std::vector<std::string> names_in(const nlohmann::json& json, const std::string& where) {
    if (!json.contains("class_names")) return {};
    std::vector<std::string> names;
    if (!json["class_names"].is_array()) core::fail("{}: \"class_names\" must be a list", where);
    for (const auto& name : json["class_names"]) {
        if (!name.is_string())
            core::fail("{}: a name of a class is {}; expected a string", where,
                       core::json_text(name).substr(0, 100));
        names.push_back(name.get<std::string>());
    }
    return names;
}

}  // namespace

std::optional<Labelling> parse_labelling(std::string_view text, const std::string& where) {
    const nlohmann::json json = core::parse_json(text, where);
    if (!json.is_object() || !json.contains("labels")) core::fail("{}: has no \"labels\"", where);
    const nlohmann::json& list = json["labels"];
    if (list.is_null()) return std::nullopt;
    if (!list.is_array())
        core::fail("{}: \"labels\" must be a list or null, not {}", where, list.type_name());
    Labelling labelling{{}, names_in(json, where)};
    for (const auto& pair : list) labelling.labels.insert(label_of(pair, where));
    return labelling;
}

std::int64_t parse_class_text(std::string_view text, const std::string& where) {
    text = core::without_byte_order_mark(text, where);
    const std::size_t first = std::min(text.find_first_not_of(" \t\r\n"), text.size());
    std::string_view digits = text.substr(first, 32);
    while (!digits.empty() &&
           std::string_view(" \t\r\n").find(digits.back()) != std::string_view::npos)
        digits.remove_suffix(1);
    const auto label = core::whole_number(digits);
    if (!label)
        core::fail("{}: \"{}\" is not a class; expected a whole number", where,
                   core::printable(digits));
    return *label;
}

}  // namespace atelier::data
