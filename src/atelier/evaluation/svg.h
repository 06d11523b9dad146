#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// What charts are drawn with. Lines and letters take the page's text colour (currentColor), so that a chart is readable on light
/// and dark ground alike; groups have colours that are told apart on both.
namespace atelier::evaluation {

/// "#3b82c4", one of eight, repeating.
std::string_view group_colour(std::size_t group);

/// The same as red, green, blue.
std::array<std::uint8_t, 3> group_rgb(std::size_t group);

/// A drawing of `width` x `height` units that scales to the width it is given.
class Svg {
public:
    /// `title` is read out to who cannot see the drawing.
    Svg(double width, double height, std::string_view title);

    enum class Anchor { start, middle, end };

    void line(double x1, double y1, double x2, double y2, double opacity);
    void rect(double x, double y, double width, double height, std::string_view colour);
    /// `d` is a path's commands; `attributes` say how it is drawn.
    void path(std::string_view d, std::string_view attributes);
    /// `y` is the base line. A rotation, in degrees, turns the text about its anchor.
    void text(double x, double y, std::string_view text, Anchor anchor = Anchor::start, double rotation = 0);

    /// The whole element.
    std::string finish() const;

private:
    std::string body_;
};

/// About how wide `text` stands in a drawing.
double text_width(std::string_view text);

/// Names beside patches of the groups' colours, in as many rows as the width needs.
class Legend {
public:
    Legend(const std::vector<std::string>& names, double width);
    double height() const { return height_; }
    void draw(Svg& svg, double x, double y) const;

private:
    struct Entry {
        std::string name;
        double x, y;
    };
    std::vector<Entry> entries_;
    double height_ = 0;
};

struct Tick {
    double value;
    std::string text;
};

/// Round numbers (1, 2, 5 times a power of ten) within least..most, about `wanted` of them.
std::vector<Tick> linear_ticks(double least, double most, int wanted);

/// Powers of ten within least..most, with 2 and 5 times them where there are few.
std::vector<Tick> logarithmic_ticks(double least, double most);

/// A number in few letters: "12k", "0.05", "3.1e-07".
std::string short_number(double value);

}  // namespace atelier::evaluation
