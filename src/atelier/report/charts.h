#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "atelier/core/image_file.h"
#include "atelier/metrics/point.h"

/// Charts of a run: SVG elements (no scripts, no external resources), and one raster scatter plot
/// for use during training. Colours are those of svg.h, by index of the series or group.
namespace atelier::report {

struct Series {
    std::string name;  // empty: not in the legend
    std::vector<metrics::Point> points;
};

struct LineChart {
    /// A named vertical line, drawn where it lies between the ends of the axis.
    struct Mark {
        double x;
        std::string name;
    };
    std::string title, x_label, y_label;
    std::vector<Series> series;
    bool log_y = false;  // values <= 0 are left out
    std::vector<Mark> marks{};
};

/// Lines over common axes; non-finite values break a line, and a value between two of them, or at
/// the end beside one, is a dot. Series of more than 400 points are
/// thinned to their extremes, drawn pale, with the running mean on top.
std::string line_chart(const LineChart& chart);

struct BarChart {
    struct Group {
        std::string label;
        std::vector<double> values;   // one per series; NaN: missing
        std::vector<double> spreads;  // empty, or one per value; drawn as whiskers
    };
    std::string title;
    std::vector<std::string> series;  // names of the bars in each group
    std::vector<Group> groups;
};

/// Horizontal bars, so that names stay readable on a phone.
std::string bar_chart(const BarChart& chart);

struct ScatterChart {
    std::string title;
    std::vector<metrics::Point>
        density;  // reference points, a grey density; they set the visible square
    std::vector<metrics::Point> points;  // at most 3000 are drawn
    std::vector<std::int64_t> groups;    // one per point (empty: all 0); selects the colour
    std::vector<std::string> names;      // of the groups
};

/// Points coloured by group over a grey density; the legend states how many lie outside the
/// visible square.
std::string scatter_chart(const ScatterChart& chart);

struct PartitionMap {
    std::string title;
    std::int64_t students = 1;
    std::vector<std::int64_t> owner;       // class -> student
    std::vector<std::string> class_names;  // empty: numbers
};

/// Classes in columns, students in rows; the cell of a class's owner is coloured.
std::string partition_map(const PartitionMap& map);

/// Points by group on white, `size` x `size` pixels. The visible square extends `extent` from the
/// origin in each direction; 0: far enough for 99.5 % of the coordinates.
core::Image scatter_image(const std::vector<metrics::Point>& points,
                          const std::vector<std::int64_t>& groups, int size, double extent = 0);

}  // namespace atelier::report
