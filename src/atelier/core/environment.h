#pragma once

#include <optional>
#include <string>

namespace atelier::core {

/// The value of an environment variable; nothing where it is unset or empty.
std::optional<std::string> environment(const char* name);

/// This machine's name; "unknown" where the system does not say.
std::string host_name();

}  // namespace atelier::core
