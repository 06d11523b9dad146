#include "atelier/report/training_charts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <fmt/format.h>

#include "atelier/core/whole_number.h"
#include "atelier/report/report.h"

namespace atelier::report {

namespace {

/// "students/3/adm" is of "students/3", and "adm" by kind.
std::string owner_of(const std::string& stage) { return stage.substr(0, stage.rfind('/')); }
std::string kind_of(const std::string& stage) { return stage.substr(stage.rfind('/') + 1); }

std::optional<std::int64_t> student_of(const std::string& owner) {
    const std::string folder = "students/";
    if (!owner.starts_with(folder)) return std::nullopt;
    return core::whole_number(owner.substr(folder.size()));
}

/// The last step of which anything was logged.
double end_of(const StageCurves& stage) {
    double end = 0;
    for (const Series& curve : stage.curves) {
        for (const metrics::Point& point : curve.points) end = std::max(end, point[0]);
    }
    return end;
}

/// One line per student and one for the trunk: the metric of their stages of these kinds, one after
/// the other.
class Lines {
public:
    Lines(const std::vector<StageCurves>& stages, const std::vector<std::string>& kinds)
        : stages_(stages), kinds_(kinds) {
        for (const StageCurves& stage : stages) {
            const std::string owner = owner_of(stage.stage);
            if (const auto student = student_of(owner))
                students_ = std::max(students_, *student + 1);
        }
    }

    LineChart of(const Curve& curve) {
        LineChart chart{.title = curve.caption, .y_label = curve.y_label, .log_y = curve.log_y};
        for (std::int64_t k = 0; k < students_; ++k)
            add(chart, curve, fmt::format("students/{}", k), fmt::format("student {}", k));
        add(chart, curve, "trunk", "trunk");
        return chart;
    }
    /// Where ADM begins, if all that have one begin it there.
    std::optional<double> begin_of_second() const {
        if (begins_.size() != 1) return std::nullopt;
        return *begins_.begin();
    }
    const std::set<std::string>& kinds_found() const { return found_; }

private:
    void add(LineChart& chart, const Curve& curve, const std::string& owner,
             const std::string& name) {
        Series line;
        double offset = 0;
        for (const std::string& kind : kinds_) {
            const auto stage = std::ranges::find(stages_, owner + "/" + kind, &StageCurves::stage);
            if (stage == stages_.end()) continue;
            if (const auto part = curve_named(stage->curves, curve.metric)) {
                if (offset > 0) begins_.insert(offset);
                found_.insert(kind);
                if (!line.points.empty())
                    line.points.push_back({offset, std::numeric_limits<double>::quiet_NaN()});
                for (const metrics::Point& point : part->points)
                    line.points.push_back({offset + point[0], point[1]});
            }
            offset += end_of(*stage);
        }
        if (!line.points.empty()) line.name = name;
        chart.series.push_back(line);
    }

    const std::vector<StageCurves>& stages_;
    std::vector<std::string> kinds_;
    std::int64_t students_ = 0;
    std::set<double> begins_;
    std::set<std::string> found_;
};

}  // namespace

std::vector<LineChart> training_charts(const std::vector<StageCurves>& stages, const Curve& of) {
    std::vector<LineChart> charts;
    const auto teacher = std::ranges::find(stages, "teacher", &StageCurves::stage);
    if (teacher != stages.end()) {
        if (const auto curve = curve_named(teacher->curves, of.metric))
            charts.push_back({.title = of.caption + " (teacher)",
                              .x_label = "step",
                              .y_label = of.y_label,
                              .series = {*curve},
                              .log_y = of.log_y});
    }
    Lines tsm(stages, {"tsm"}), matching(stages, {"dm", "adm"});
    LineChart chart = tsm.of(of);
    if (!tsm.kinds_found().empty()) {
        chart.title += " (TSM)";
        chart.x_label = "step";
        charts.push_back(chart);
    }
    chart = matching.of(of);
    if (matching.kinds_found().empty()) return charts;
    const bool dm = matching.kinds_found().contains("dm"),
               adm = matching.kinds_found().contains("adm");
    chart.title += dm && adm ? " (DM, then ADM)" : dm ? " (DM)" : " (ADM)";
    chart.x_label = "generator updates";
    if (const auto begin = matching.begin_of_second(); dm && begin)
        chart.marks.push_back({*begin, "ADM"});
    charts.push_back(chart);
    return charts;
}

}  // namespace atelier::report
