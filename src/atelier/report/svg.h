#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// SVG primitives for charts. Lines and text use the page's text colour (currentColor), so that a
/// chart is readable on light and dark backgrounds; group colours are distinguishable on both.
namespace atelier::report {

/// "#3b82c4", one of eight, repeating.
std::string_view group_colour(std::size_t group);

/// Presentation attributes of a group's lines: its colour, and dashes where colours repeat.
std::string line_attributes(std::size_t group);

/// The same colour as red, green, blue.
std::array<std::uint8_t, 3> group_rgb(std::size_t group);

/// A drawing of `width` x `height` units that scales to the available width.
class Svg {
public:
    /// `title` is the accessible name, read by screen readers.
    Svg(double width, double height, std::string_view title);

    enum class Anchor { start, middle, end };

    void line(double x1, double y1, double x2, double y2, double opacity);
    void rect(double x, double y, double width, double height, std::string_view colour);
    /// `d` holds the path commands, `attributes` the presentation attributes.
    void path(std::string_view d, std::string_view attributes);
    /// `y` is the baseline. `rotation`, in degrees, rotates the text about its anchor.
    void text(double x, double y, std::string_view text, Anchor anchor = Anchor::start,
              double rotation = 0);

    /// The whole element.
    std::string finish() const;

private:
    std::string body_;
};

/// The approximate width of `text` in a drawing.
double text_width(std::string_view text);

/// Names beside patches of the groups' colours, or pieces of their lines, wrapped into rows of at
/// most `width`. A group without a name is left out.
class Legend {
public:
    enum class Marks { patches, lines };

    Legend(const std::vector<std::string>& names, double width, Marks marks = Marks::patches);
    double height() const { return height_; }
    void draw(Svg& svg, double x, double y) const;

private:
    struct Entry {
        std::string name;
        std::size_t group;
        double x, y;
    };
    std::vector<Entry> entries_;
    Marks marks_;
    double height_ = 0;
};

struct Tick {
    double value;
    std::string text;
};

/// About `count` round numbers (1, 2, 5 times a power of ten) within least..most.
std::vector<Tick> linear_ticks(double least, double most, int count);

/// Powers of ten within least..most, and 2 and 5 times those when there are few.
std::vector<Tick> logarithmic_ticks(double least, double most);

/// A compact number: "12k", "0.05", "3.1e-07".
std::string short_number(double value);

}  // namespace atelier::report
