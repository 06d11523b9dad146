#include "atelier/report/svg.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "atelier/report/markup.h"

namespace atelier::report {

namespace {

// Each has a contrast of at least 3:1 against white and against the report's dark background.
constexpr std::array<std::string_view, 8> colours{"#3b82c4", "#d96d26", "#2f9461", "#c2508f",
                                                  "#8b6fc9", "#a88620", "#1f98a5", "#cf4b4b"};
constexpr double row_height = 18;

bool continues_letter(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

std::string_view group_colour(std::size_t group) { return colours[group % colours.size()]; }

std::string line_attributes(std::size_t group) {
    static constexpr std::array<std::string_view, 3> dashes{"", " stroke-dasharray=\"6 4\"",
                                                            " stroke-dasharray=\"1.5 4\""};
    const std::size_t round = std::min(group / colours.size(), dashes.size() - 1);
    return fmt::format("stroke=\"{}\"{}", group_colour(group), dashes[round]);
}

std::array<std::uint8_t, 3> group_rgb(std::size_t group) {
    std::array<std::uint8_t, 3> rgb{};
    const std::string_view text = group_colour(group);
    for (std::size_t i = 0; i < 3; ++i)
        std::from_chars(text.data() + 1 + 2 * i, text.data() + 3 + 2 * i, rgb[i], 16);
    return rgb;
}

Svg::Svg(double width, double height, std::string_view title) {
    body_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" "
        "fill=\"currentColor\" "
        "font-family=\"system-ui,'DejaVu Sans',sans-serif\" font-size=\"12\"><title>{}</title>\n",
        width, height, escape_markup(title));
}

void Svg::line(double x1, double y1, double x2, double y2, double opacity) {
    body_ += fmt::format(
        "<path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"currentColor\" "
        "stroke-opacity=\"{:g}\"/>\n",
        x1, y1, x2, y2, opacity);
}

void Svg::rect(double x, double y, double width, double height, std::string_view colour) {
    body_ += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" fill=\"{}\"/>\n", x, y,
        width, height, colour);
}

void Svg::path(std::string_view d, std::string_view attributes) {
    body_ += fmt::format("<path d=\"{}\" {}/>\n", d, attributes);
}

void Svg::text(double x, double y, std::string_view text, Anchor anchor, double rotation) {
    static constexpr std::array<std::string_view, 3> anchors{"start", "middle", "end"};
    const std::string transform =
        rotation == 0 ? ""
                      : fmt::format(" transform=\"rotate({:g} {:.1f} {:.1f})\"", rotation, x, y);
    body_ += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" fill-opacity=\"0.8\"{}>{}</text>\n", x,
        y, anchors[static_cast<std::size_t>(anchor)], transform, escape_markup(text));
}

std::string Svg::finish() const { return body_ + "</svg>\n"; }

double text_width(std::string_view text) {
    return 6.5 * static_cast<double>(text.size() - static_cast<std::size_t>(std::ranges::count_if(
                                                       text, continues_letter)));
}

Legend::Legend(const std::vector<std::string>& names, double width, Marks marks) : marks_(marks) {
    double x = 0, y = 0;
    for (std::size_t group = 0; group < names.size(); ++group) {
        const std::string& name = names[group];
        if (name.empty()) continue;
        const double entry_width = 18 + text_width(name) + 12;
        if (x > 0 && x + entry_width > width) {
            x = 0;
            y += row_height;
        }
        entries_.push_back({name, group, x, y});
        x += entry_width;
    }
    height_ = entries_.empty() ? 0 : y + row_height;
}

void Legend::draw(Svg& svg, double x, double y) const {
    for (const Entry& entry : entries_) {
        if (marks_ == Marks::patches)
            svg.rect(x + entry.x, y + entry.y + 2, 12, 10, group_colour(entry.group));
        else
            svg.path(fmt::format("M{:.1f} {:.1f}h14", x + entry.x - 1, y + entry.y + 7),
                     "stroke-width=\"2.6\" " + line_attributes(entry.group));
        svg.text(x + entry.x + 17, y + entry.y + 11, entry.name);
    }
}

std::vector<Tick> linear_ticks(double least, double most, int count) {
    const double rough = (most - least) / std::max(1, count);
    if (!(rough > 0) || !std::isfinite(rough)) return {{least, short_number(least)}};
    const double power = std::pow(10.0, std::floor(std::log10(rough)));
    double step = power * 10;
    for (const double factor : {5.0, 2.0, 1.0}) {
        if (factor * power >= rough * 0.999) step = factor * power;
    }
    std::vector<Tick> ticks;
    const auto last = static_cast<std::int64_t>(std::floor(most / step + 1e-9));
    for (auto i = static_cast<std::int64_t>(std::ceil(least / step - 1e-9)); i <= last; ++i) {
        const double value = static_cast<double>(i) * step;
        ticks.push_back({value, short_number(value)});
    }
    return ticks;
}

std::vector<Tick> logarithmic_ticks(double least, double most) {
    std::vector<Tick> ticks;
    const auto first = static_cast<int>(std::floor(std::log10(least))),
               last = static_cast<int>(std::floor(std::log10(most)));
    const int every = std::max(1, (last - first) / 6);
    for (int exponent = first; exponent <= last; exponent += every) {
        for (const double factor : {1.0, 2.0, 5.0}) {
            const double value = factor * std::pow(10.0, exponent);
            const bool shown = factor == 1.0 || last - first < 3;
            if (shown && value >= least * 0.999 && value <= most * 1.001)
                ticks.push_back({value, short_number(value)});
        }
    }
    return ticks;
}

std::string short_number(double value) {
    const double size = std::abs(value);
    if (size >= 1e9) return fmt::format("{:.3g}", value);
    if (size >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
    if (size >= 1e4) return fmt::format("{:.4g}k", value / 1e3);
    return size < 1e-12 ? "0" : fmt::format("{:.4g}", value);
}

}  // namespace atelier::report
