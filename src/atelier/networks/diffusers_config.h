#pragma once

#include <map>
#include <string>

#include "atelier/core/json_file.h"

namespace atelier::networks {

/// Checks options of a diffusers or transformers config that change what a network computes and for
/// which only the default is supported. `accepted` holds the accepted values, several where they
/// mean the same. Throws core::Error naming file and option on any other value. Missing options are
/// defaults.
void require_options(const core::JsonObject& config,
                     const std::map<std::string, nlohmann::json>& accepted);

/// `_class_name` of the config, where present, must be `class_name`. Throws core::Error.
void require_class(const core::JsonObject& config, const std::string& class_name);

/// One integer per block, for `count` blocks: a single value for all, or a list. Throws
/// core::Error.
std::vector<std::int64_t> integer_or_list(const core::JsonObject& config, const std::string& key,
                                          std::size_t count, std::int64_t minimum,
                                          std::int64_t maximum);

/// Whether the config has the key with a value other than null.
bool is_given(const core::JsonObject& config, const std::string& key);

bool flag_or(const core::JsonObject& config, const std::string& key, bool otherwise);

}  // namespace atelier::networks
