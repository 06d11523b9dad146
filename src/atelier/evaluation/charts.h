#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "atelier/core/image_file.h"

/// Pictures of a run: SVG elements (no script, no outside resources) and one raster picture for training time. Colours are
/// those of svg.h, by the index of a series or group.
namespace atelier::evaluation {

using Point = std::array<double, 2>;

struct Series {
    std::string name;
    std::vector<Point> points;
};

struct LineChart {
    std::string title, x_label, y_label;
    std::vector<Series> series;
    bool log_y = false;  // numbers at or below 0 are left out
};

/// Lines over common axes; numbers that are not finite break a line. Series of more than 400 points are
/// thinned, the extremes kept and pale, and their running mean is drawn over that.
std::string line_chart(const LineChart& chart);

struct BarChart {
    struct Group {
        std::string label;
        std::vector<double> values;   // one a series; not a number: missing
        std::vector<double> spreads;  // empty, or one a value; drawn as whiskers
    };
    std::string title;
    std::vector<std::string> series;  // what the bars of a group stand for
    std::vector<Group> groups;
};

/// Horizontal bars, so that names stay readable on a phone.
std::string bar_chart(const BarChart& chart);

struct ScatterChart {
    std::string title;
    std::vector<Point> density;        // reference points, shown as grey ground; they set the seen square
    std::vector<Point> points;         // at most 3000 are drawn
    std::vector<std::int64_t> groups;  // of each point (empty: all 0): its colour
    std::vector<std::string> names;    // of the groups
};

/// Points coloured by group over a grey density; the legend says how many lie outside the seen square.
std::string scatter_chart(const ScatterChart& chart);

struct PartitionMap {
    std::string title;
    std::int64_t students = 1;
    std::vector<std::int64_t> owner;       // class -> student
    std::vector<std::string> class_names;  // empty: numbers
};

/// Classes in columns, students in rows; a class's owner is coloured.
std::string partition_map(const PartitionMap& map);

/// Points by group on white, `size` pixels a side. The seen square reaches `extent` from the origin each way; 0: as far as
/// 99.5 % of the coordinates reach.
core::Image scatter_image(const std::vector<Point>& points, const std::vector<std::int64_t>& groups, int size, double extent = 0);

}  // namespace atelier::evaluation
