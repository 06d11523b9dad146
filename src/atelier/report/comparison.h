#pragma once

#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "atelier/report/report.h"

namespace atelier::report {

/// Keys and column titles of the metrics present in `results`, in display order.
std::vector<std::pair<std::string, std::string>> metric_columns(const nlohmann::json& results);

/// The models' metrics side by side, one row per model.
Table comparison_table(const nlohmann::json& results);

/// Renders a table as text for a terminal.
std::string text_of(const Table& table);

}  // namespace atelier::report
