#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "atelier/report/charts.h"
#include "atelier/report/svg.h"

namespace atelier::report {

namespace {

constexpr double side = 360, margin = 34;
constexpr int cells = 72, levels = 6;
constexpr std::size_t max_dots = 3000;

/// The visible square of a scatter chart.
struct Square {
    metrics::Point centre;
    double half;

    bool contains(const metrics::Point& p) const {
        return std::abs(p[0] - centre[0]) <= half && std::abs(p[1] - centre[1]) <= half;
    }
    /// 0..1 from left to right, and from top to bottom.
    double x_fraction(const metrics::Point& p) const {
        return (p[0] - centre[0] + half) / (2 * half);
    }
    double y_fraction(const metrics::Point& p) const {
        return (centre[1] + half - p[1]) / (2 * half);
    }
};

Square square_around(const std::vector<metrics::Point>& points) {
    metrics::Point least{INFINITY, INFINITY}, most{-INFINITY, -INFINITY};
    for (const metrics::Point& point : points) {
        for (std::size_t axis = 0; axis < 2; ++axis) {
            if (!std::isfinite(point[axis])) continue;
            least[axis] = std::min(least[axis], point[axis]);
            most[axis] = std::max(most[axis], point[axis]);
        }
    }
    if (!(least[0] <= most[0] && least[1] <= most[1])) return {{0, 0}, 1};
    const double half = 0.53 * std::max(most[0] - least[0], most[1] - least[1]);
    return {{(least[0] + most[0]) / 2, (least[1] + most[1]) / 2}, half > 0 ? half : 1};
}

int cell_of(double share) { return std::clamp(static_cast<int>(share * cells), 0, cells - 1); }

/// Where a cell's count is, row by row.
std::size_t place_of(int row, int column) {
    return static_cast<std::size_t>(row) * cells + static_cast<std::size_t>(column);
}

/// A grey histogram of the density, darker where more points lie; each shade is one path of
/// horizontal runs.
void draw_density(Svg& svg, const std::vector<metrics::Point>& density, const Square& square) {
    std::vector<int> counts(place_of(cells, 0), 0);
    for (const metrics::Point& point : density) {
        if (square.contains(point))
            ++counts[place_of(cell_of(square.y_fraction(point)),
                              cell_of(square.x_fraction(point)))];
    }
    const double most = std::max(1, *std::ranges::max_element(counts));
    const auto level_at = [&](int row, int column) {
        const int count = counts[place_of(row, column)];
        return count == 0 ? 0 : 1 + static_cast<int>((levels - 1) * std::sqrt(count / most) + 0.5);
    };
    std::map<int, std::string> paths;
    const double step = side / cells;
    for (int row = 0; row < cells; ++row) {
        for (int column = 0, end = 0; column < cells; column = end) {
            const int level = level_at(row, column);
            while (end < cells && level_at(row, end) == level) ++end;
            if (level > 0)
                paths[level] +=
                    fmt::format("M{:.1f} {:.1f}h{:.1f}v{:.1f}h-{:.1f}z", margin + column * step,
                                4 + row * step, (end - column) * step, step, (end - column) * step);
        }
    }
    for (const auto& [level, d] : paths)
        svg.path(d, fmt::format("fill-opacity=\"{:.2f}\"", 0.06 * level));
}

void draw_square_axes(Svg& svg, const Square& square) {
    const double bottom = 4 + side;
    for (const Tick& tick :
         linear_ticks(square.centre[0] - square.half, square.centre[0] + square.half, 5)) {
        svg.text(margin + side * square.x_fraction({tick.value, 0}), bottom + 15, tick.text,
                 Svg::Anchor::middle);
    }
    for (const Tick& tick :
         linear_ticks(square.centre[1] - square.half, square.centre[1] + square.half, 5)) {
        svg.text(margin - 5, 8 + side * square.y_fraction({0, tick.value}), tick.text,
                 Svg::Anchor::end);
    }
    svg.path(fmt::format("M{0} 4h{1}v{1}h-{1}z", margin, side),
             "fill=\"none\" stroke=\"currentColor\" stroke-opacity=\"0.35\"");
}

std::size_t group_at(const std::vector<std::int64_t>& groups, std::size_t i) {
    return i < groups.size() && groups[i] >= 0 ? static_cast<std::size_t>(groups[i]) : 0;
}

/// Dots are lines of zero length with round caps, one path per group.
void draw_points(Svg& svg, const ScatterChart& chart, const Square& square) {
    std::map<std::size_t, std::string> paths;
    const std::size_t every = chart.points.size() / max_dots + 1;
    for (std::size_t i = 0; i < chart.points.size(); i += every) {
        const metrics::Point& point = chart.points[i];
        if (!square.contains(point)) continue;
        paths[group_at(chart.groups, i)] +=
            fmt::format("M{:.1f} {:.1f}h0", margin + side * square.x_fraction(point),
                        4 + side * square.y_fraction(point));
    }
    for (const auto& [group, d] : paths) {
        svg.path(d, fmt::format("stroke=\"{}\" stroke-width=\"2.6\" stroke-linecap=\"round\" "
                                "stroke-opacity=\"0.7\"",
                                group_colour(group)));
    }
}

double reach_of(const std::vector<metrics::Point>& points) {
    std::vector<double> sizes;
    for (const metrics::Point& point : points) {
        const double size = std::max(std::abs(point[0]), std::abs(point[1]));
        if (std::isfinite(size)) sizes.push_back(size);
    }
    if (sizes.empty()) return 1;
    const auto quantile =
        sizes.begin() + static_cast<std::ptrdiff_t>(0.995 * static_cast<double>(sizes.size() - 1));
    std::ranges::nth_element(sizes, quantile);
    return *quantile > 0 ? 1.1 * *quantile : 1;
}

}  // namespace

std::string scatter_chart(const ScatterChart& chart) {
    const Square square = square_around(chart.density.empty() ? chart.points : chart.density);
    const Legend legend(chart.names, side);
    const auto outside = std::ranges::count_if(
        chart.points, [&](const metrics::Point& point) { return !square.contains(point); });
    const double below = side + 28;
    Svg svg(side + margin + 12, below + legend.height() + (outside > 0 ? 18 : 0), chart.title);
    draw_density(svg, chart.density, square);
    draw_points(svg, chart, square);
    draw_square_axes(svg, square);
    legend.draw(svg, margin, below);
    if (outside > 0)
        svg.text(margin, below + legend.height() + 11,
                 fmt::format("{} of {} points lie outside", outside, chart.points.size()));
    return svg.finish();
}

std::string partition_map(const PartitionMap& map) {
    constexpr double width = 440, row = 20, left = 100;
    const auto classes = static_cast<double>(map.owner.size());
    const double column = (width - left - 8) / std::max(1.0, classes),
                 bottom = 6 + row * static_cast<double>(map.students);
    const bool named = column >= 11;
    double longest = text_width(std::to_string(map.owner.size()));
    for (const std::string& name : map.class_names) longest = std::max(longest, text_width(name));
    Svg svg(width, bottom + (named ? std::min(longest, 130.0) * 0.85 + 18 : 22), map.title);
    for (std::int64_t student = 0; student < map.students; ++student) {
        const double y = 6 + row * static_cast<double>(student);
        svg.text(left - 8, y + 14,
                 fmt::format("student {} ({})", student, std::ranges::count(map.owner, student)),
                 Svg::Anchor::end);
        svg.line(left, y + row, width - 8, y + row, 0.13);
    }
    for (std::size_t i = 0; i < map.owner.size(); ++i) {
        const double x = left + column * static_cast<double>(i), gap = named ? 1 : 0;
        svg.rect(x + gap, 7 + row * static_cast<double>(map.owner[i]), column - 2 * gap, row - 2,
                 group_colour(static_cast<std::size_t>(map.owner[i])));
        const std::string name =
            i < map.class_names.size() ? map.class_names[i] : std::to_string(i);
        if (named) svg.text(x + column / 2 + 4, bottom + 12, name, Svg::Anchor::end, -55);
    }
    if (!named) {
        for (const Tick& tick : linear_ticks(0, classes - 1, 8))
            svg.text(left + column * (tick.value + 0.5), bottom + 15, tick.text,
                     Svg::Anchor::middle);
    }
    return svg.finish();
}

core::Image scatter_image(const std::vector<metrics::Point>& points,
                          const std::vector<std::int64_t>& groups, int size, double extent) {
    core::Image image{
        size, size, 3,
        std::vector<std::uint8_t>(
            static_cast<std::size_t>(size) * static_cast<std::size_t>(size) * 3, 255)};
    const Square square{{0, 0}, extent > 0 ? extent : reach_of(points)};
    const int reach = std::max(1, size / 200);  // a dot's pixels along each axis, minus one
    for (std::size_t i = 0; i < points.size(); ++i) {
        if (!square.contains(points[i])) continue;
        const auto rgb = group_rgb(group_at(groups, i));
        const int x = static_cast<int>(square.x_fraction(points[i]) * (size - 1)),
                  y = static_cast<int>(square.y_fraction(points[i]) * (size - 1));
        for (int dy = 0; dy <= reach && y + dy < size; ++dy) {
            for (int dx = 0; dx <= reach && x + dx < size; ++dx) {
                const std::ptrdiff_t row = y + dy, pixel = row * size + x + dx;
                std::ranges::copy(rgb, image.pixels.begin() + 3 * pixel);
            }
        }
    }
    return image;
}

}  // namespace atelier::report
