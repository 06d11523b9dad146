#include "atelier/networks/diffusers_config.h"

#include <algorithm>

#include "atelier/core/error.h"

namespace atelier::networks {

void require_options(const core::JsonObject& config,
                     const std::map<std::string, nlohmann::json>& accepted) {
    for (const auto& [key, values] : accepted) {
        if (!config.has(key) || std::ranges::find(values, config.json().at(key)) != values.end())
            continue;
        core::fail("{}: \"{}\" is {}; only {} is supported", config.where(), key,
                   config.json().at(key).dump().substr(0, 100), values[0].dump());
    }
}

void require_class(const core::JsonObject& config, const std::string& class_name) {
    const std::string name = config.text_or("_class_name", class_name);
    if (name != class_name)
        core::fail("{}: is of the class \"{}\"; only {} is supported here", config.where(),
                   name.substr(0, 100), class_name);
}

std::vector<std::int64_t> integer_or_list(const core::JsonObject& config, const std::string& key,
                                          std::size_t count, std::int64_t minimum,
                                          std::int64_t maximum) {
    if (config.has(key) && config.json().at(key).is_array()) {
        auto list = config.integers(key, minimum, maximum);
        if (list.size() != count)
            core::fail("{}: \"{}\" has {} entries for {} blocks", config.where(), key, list.size(),
                       count);
        return list;
    }
    return std::vector<std::int64_t>(count, config.integer(key, minimum, maximum));
}

bool is_given(const core::JsonObject& config, const std::string& key) {
    return config.has(key) && !config.json().at(key).is_null();
}

bool flag_or(const core::JsonObject& config, const std::string& key, bool otherwise) {
    if (!is_given(config, key)) return otherwise;
    if (!config.json().at(key).is_boolean())
        core::fail("{}: \"{}\" must be true or false", config.where(), key);
    return config.json().at(key).get<bool>();
}

}  // namespace atelier::networks
