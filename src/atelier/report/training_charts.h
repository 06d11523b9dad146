#pragma once

#include <string>
#include <vector>

#include "atelier/report/charts.h"

namespace atelier::report {

/// What a stage has logged; `stage` is its folder in the run, "teacher", "students/0/dm" or
/// "trunk/adm".
struct StageCurves {
    std::string stage;
    std::vector<Series> curves;
};

/// A metric, as stages log it, and how it is shown.
struct Curve {
    std::string metric, caption, y_label;
    bool log_y = false;
};

/// Charts of one metric, each with those stages that log it: the teacher's; TSM's; and DM's, which
/// ADM's continues. Students have a line each, in the colour of their number, and the trunk one
/// after them.
std::vector<LineChart> training_charts(const std::vector<StageCurves>& stages, const Curve& of);

}  // namespace atelier::report
