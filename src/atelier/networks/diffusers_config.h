#pragma once

#include <map>
#include <string>

#include "atelier/core/json_file.h"

namespace atelier::networks {

/// Options of a diffusers or transformers config that change what a network computes and that are read with one value only, the default. `accepted`
/// holds the values, several where they mean the same. Throws core::Error naming file and option on any other. Options that are missing are defaults.
void require_options(const core::JsonObject& config, const std::map<std::string, nlohmann::json>& accepted);

/// The class that the config says it is of (`_class_name`) must be `wanted`, where it says so. Throws core::Error.
void require_class(const core::JsonObject& config, const std::string& wanted);

/// A number for each of `count` blocks: one for all, or a list. Throws core::Error.
std::vector<std::int64_t> integer_or_list(const core::JsonObject& config, const std::string& key, std::size_t count, std::int64_t least, std::int64_t most);

bool flag_or(const core::JsonObject& config, const std::string& key, bool otherwise);

}  // namespace atelier::networks
