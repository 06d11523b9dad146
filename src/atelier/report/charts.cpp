#include "atelier/report/charts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include <fmt/format.h>

#include "atelier/report/svg.h"

namespace atelier::report {

namespace {

constexpr double chart_width = 440, plot_height = 200, left_margin = 58, right_margin = 14,
                 top_margin = 8;
constexpr std::size_t max_points = 400, smooth_points = 80;

/// The range of values along one axis, and its extent in the drawing.
struct Axis {
    double least, most, begin, end;
    bool logarithmic = false;

    double position(double value) const {
        const double at = logarithmic ? std::log(value / least) / std::log(most / least)
                                      : (value - least) / (most - least);
        return begin + at * (end - begin);
    }
};

struct Bounds {
    double least = std::numeric_limits<double>::infinity(), most = -least;
    void take(double value) {
        least = std::min(least, value);
        most = std::max(most, value);
    }
    bool empty() const { return least > most; }
};

bool drawable(const metrics::Point& point, bool log_y) {
    return std::isfinite(point[0]) && std::isfinite(point[1]) && (!log_y || point[1] > 0);
}

/// Adds a margin, so that lines do not run along the frame; a single value is centred.
Bounds padded(Bounds bounds, bool logarithmic) {
    if (logarithmic) {
        const double factor =
            bounds.most > bounds.least ? std::pow(bounds.most / bounds.least, 0.04) : 2.0;
        return {bounds.least / factor, bounds.most * factor};
    }
    const double padding = bounds.most > bounds.least ? 0.04 * (bounds.most - bounds.least)
                                                      : std::max(0.1 * std::abs(bounds.most), 1e-9);
    return {bounds.least - padding, bounds.most + padding};
}

/// `points` split into `count` runs of nearly equal length.
std::vector<std::span<const metrics::Point>> runs_of(const std::vector<metrics::Point>& points,
                                                     std::size_t count) {
    std::vector<std::span<const metrics::Point>> runs;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t begin = i * points.size() / count, end = (i + 1) * points.size() / count;
        runs.push_back(std::span(points).subspan(begin, end - begin));
    }
    return runs;
}

/// At most `max_points` points: the minimum and maximum of each run of points, in order.
std::vector<metrics::Point> thinned(const std::vector<metrics::Point>& points) {
    if (points.size() <= max_points) return points;
    std::vector<metrics::Point> kept;
    for (const std::span<const metrics::Point> run : runs_of(points, max_points / 2)) {
        auto [least, most] = std::ranges::minmax_element(
            run, {}, [](const metrics::Point& point) { return point[1]; });
        if (most < least) std::swap(least, most);
        kept.push_back(*least);
        if (most != least) kept.push_back(*most);
    }
    return kept;
}

/// The mean of the drawable points of each run.
std::vector<metrics::Point> smoothed(const std::vector<metrics::Point>& points, bool log_y) {
    std::vector<metrics::Point> means;
    for (const std::span<const metrics::Point> run : runs_of(points, smooth_points)) {
        metrics::Point sum{0, 0};
        double count = 0;
        for (const metrics::Point& point : run) {
            if (!drawable(point, log_y)) continue;
            sum = {sum[0] + point[0], sum[1] + point[1]};
            ++count;
        }
        if (count > 0) means.push_back({sum[0] / count, sum[1] / count});
    }
    return means;
}

void draw_line(Svg& svg, const std::vector<metrics::Point>& points, std::size_t index,
               const Axis& x, const Axis& y, double opacity) {
    std::string lines, dots;
    const auto visible = [&](std::size_t i) {
        return i < points.size() && drawable(points[i], y.logarithmic);
    };
    for (std::size_t i = 0; i < points.size(); ++i) {
        if (!visible(i)) continue;
        const bool connected = i > 0 && visible(i - 1);
        const std::string place =
            fmt::format("{:.1f} {:.1f}", x.position(points[i][0]), y.position(points[i][1]));
        // A line of zero length with round caps is a dot.
        if (!connected && !visible(i + 1)) dots += "M" + place + "h0";
        else lines += (connected ? "L" : "M") + place;
    }
    if (!lines.empty())
        svg.path(lines, fmt::format("fill=\"none\" {} stroke-width=\"1.8\" "
                                    "stroke-opacity=\"{:g}\" stroke-linejoin=\"round\" "
                                    "stroke-linecap=\"round\"",
                                    line_attributes(index), opacity));
    // Few are easily overlooked; many, where a line is broken all along, would cover each other.
    constexpr std::ptrdiff_t few = 20;
    const char* size = std::ranges::count(dots, 'M') > few ? "2.5" : "7";
    if (!dots.empty())
        svg.path(dots, fmt::format("stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{:g}\" "
                                   "stroke-linecap=\"round\"",
                                   group_colour(index), size, opacity));
}

/// A long series is drawn as its pale extremes with the running mean on top.
void draw_series(Svg& svg, const Series& series, std::size_t index, const Axis& x, const Axis& y) {
    const bool is_long = series.points.size() > max_points;
    draw_line(svg, thinned(series.points), index, x, y, is_long ? 0.3 : 1.0);
    if (is_long) draw_line(svg, smoothed(series.points, y.logarithmic), index, x, y, 1.0);
}

void draw_axes(Svg& svg, const LineChart& chart, const Axis& x, const Axis& y) {
    std::vector<Tick> ticks =
        y.logarithmic ? logarithmic_ticks(y.least, y.most) : linear_ticks(y.least, y.most, 5);
    constexpr std::size_t fewest_ticks = 3;  // with fewer an axis cannot be read
    if (y.logarithmic && ticks.size() < fewest_ticks) ticks = linear_ticks(y.least, y.most, 5);
    for (const Tick& tick : ticks) {
        const double at = y.position(tick.value);
        svg.line(x.begin, at, x.end, at, 0.13);
        svg.text(x.begin - 6, at + 4, tick.text, Svg::Anchor::end);
    }
    for (const Tick& tick : linear_ticks(x.least, x.most, 6)) {
        const double at = x.position(tick.value);
        svg.line(at, y.begin, at, y.begin + 4, 0.5);
        svg.text(at, y.begin + 17, tick.text, Svg::Anchor::middle);
    }
    for (const LineChart::Mark& mark : chart.marks) {
        if (mark.x <= x.least || mark.x >= x.most) continue;
        const double at = x.position(mark.x);
        svg.path(fmt::format("M{:.1f} {:.1f}V{:.1f}", at, y.begin, y.end),
                 "stroke=\"currentColor\" stroke-opacity=\"0.5\" stroke-dasharray=\"2 3\"");
        svg.text(at + 4, y.end + 11, mark.name);
    }
    svg.line(x.begin, y.begin, x.end, y.begin, 0.5);
    svg.text((x.begin + x.end) / 2, y.begin + 34, chart.x_label, Svg::Anchor::middle);
    svg.text(13, (y.begin + y.end) / 2, chart.y_label, Svg::Anchor::middle, -90);
}

/// A placeholder that says "no data".
std::string empty_chart(const std::string& title) {
    Svg svg(chart_width, 60, title);
    svg.text(chart_width / 2, 34, "no data", Svg::Anchor::middle);
    return svg.finish();
}

std::vector<std::string> names_of(const std::vector<Series>& series) {
    std::vector<std::string> names;
    for (const Series& one : series) names.push_back(one.name);
    return names;
}

// Bars
// ----

constexpr double bar_height = 13, bar_gap = 2, group_gap = 11;

std::string value_text(double value, double spread) {
    const std::string number =
        std::abs(value) < 1000 ? fmt::format("{:.3g}", value) : short_number(value);
    return spread > 0 ? fmt::format("{} ± {:.2g}", number, spread) : number;
}

double spread_of(const BarChart::Group& group, std::size_t i) {
    return i < group.spreads.size() && std::isfinite(group.spreads[i]) ? group.spreads[i] : 0.0;
}

void draw_bar(Svg& svg, const Axis& x, double y, double value, double spread, std::size_t series) {
    const double zero = x.position(0), end = x.position(value);
    svg.rect(std::min(zero, end), y, std::max(0.8, std::abs(end - zero)), bar_height,
             group_colour(series));
    const double reach = x.position(std::max(value + spread, 0.0));
    if (spread > 0)
        svg.line(x.position(value - spread), y + bar_height / 2, reach, y + bar_height / 2, 0.9);
    svg.text(std::max(reach, end) + 5, y + bar_height - 3, value_text(value, spread));
}

/// The common axis of all bars: contains 0 and leaves space for the values at the bars' ends.
Axis bar_axis(const BarChart& chart, double begin) {
    Bounds bounds;
    bounds.take(0);
    double widest = 0;
    for (const BarChart::Group& group : chart.groups) {
        for (std::size_t i = 0; i < group.values.size(); ++i) {
            if (!std::isfinite(group.values[i])) continue;
            bounds.take(group.values[i] - (group.values[i] < 0 ? spread_of(group, i) : 0));
            bounds.take(group.values[i] + spread_of(group, i));
            widest = std::max(widest, text_width(value_text(group.values[i], spread_of(group, i))));
        }
    }
    if (bounds.most <= bounds.least) bounds.most = bounds.least + 1;
    return {bounds.least, bounds.most, begin, chart_width - widest - 10};
}

}  // namespace

std::string line_chart(const LineChart& chart) {
    Bounds x_bounds, y_bounds, positive;
    for (const Series& series : chart.series) {
        for (const metrics::Point& point : series.points) {
            if (!drawable(point, false)) continue;
            x_bounds.take(point[0]);
            y_bounds.take(point[1]);
            if (point[1] > 0) positive.take(point[1]);
        }
    }
    if (x_bounds.empty()) return empty_chart(chart.title);
    const bool logarithmic = chart.log_y && !positive.empty();
    y_bounds = padded(logarithmic ? positive : y_bounds, logarithmic);
    if (x_bounds.most == x_bounds.least) x_bounds = padded(x_bounds, false);

    const std::vector<std::string> names = names_of(chart.series);
    const bool several = std::ranges::count_if(names, [](const auto& n) { return !n.empty(); }) > 1;
    const Legend legend(several ? names : std::vector<std::string>{},
                        chart_width - left_margin - right_margin, Legend::Marks::lines);
    const double top = top_margin + legend.height(), bottom = top + plot_height;
    const Axis x{x_bounds.least, x_bounds.most, left_margin, chart_width - right_margin};
    const Axis y{y_bounds.least, y_bounds.most, bottom, top, logarithmic};
    Svg svg(chart_width, bottom + (chart.x_label.empty() ? 24 : 42), chart.title);
    legend.draw(svg, left_margin, top_margin - 6);
    draw_axes(svg, chart, x, y);
    for (std::size_t i = 0; i < chart.series.size(); ++i)
        draw_series(svg, chart.series[i], i, x, y);
    return svg.finish();
}

std::string bar_chart(const BarChart& chart) {
    if (chart.groups.empty()) return empty_chart(chart.title);
    double labels = 0, height = top_margin;
    for (const BarChart::Group& group : chart.groups) {
        labels = std::max(labels, text_width(group.label));
        height += static_cast<double>(group.values.size()) * (bar_height + bar_gap) + group_gap;
    }
    const Legend legend(chart.series.size() > 1 ? chart.series : std::vector<std::string>{},
                        chart_width);
    const Axis x = bar_axis(chart, std::min(labels, 170.0) + 10);
    Svg svg(chart_width, height + legend.height(), chart.title);
    legend.draw(svg, 4, top_margin - 6);
    double y = top_margin + legend.height();
    svg.line(x.position(0), y, x.position(0), height + legend.height() - group_gap, 0.5);
    for (const BarChart::Group& group : chart.groups) {
        const double tall = static_cast<double>(group.values.size()) * (bar_height + bar_gap);
        svg.text(x.begin - 8, y + tall / 2 + 3, group.label, Svg::Anchor::end);
        for (std::size_t i = 0; i < group.values.size(); ++i, y += bar_height + bar_gap) {
            if (std::isfinite(group.values[i]))
                draw_bar(svg, x, y, group.values[i], spread_of(group, i), i);
        }
        y += group_gap;
    }
    return svg.finish();
}

}  // namespace atelier::report
