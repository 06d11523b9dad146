#pragma once

#include <cmath>
#include <string>

#include <nlohmann/json.hpp>

/// Figures as a plan prints them.
namespace atelier::planning {

/// With four digits and a prefix of SI, which a unit follows: "1.229 T", "640 ".
std::string format_count(double count);
/// The same without a unit: "51.2 k", "640".
std::string format_quantity(double count);

inline nlohmann::json number_or_null(double value) {
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

}  // namespace atelier::planning
