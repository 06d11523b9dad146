#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "atelier/core/image_file.h"
#include "atelier/distillation/stage.h"
#include "atelier/evaluation/charts.h"

namespace atelier::evaluation {

/// A picture of a report with the words below it. Either an SVG element (of charts.h) or an image.
struct Figure {
    std::string svg;
    std::optional<core::Image> image;
    std::string caption;
    std::vector<std::string> columns{};  // of the image, from the left: written above it
};

/// Rows of text; a column whose cells are all numbers (or "-") is set to the right. `best` rows are emphasised.
struct Table {
    std::vector<std::string> columns;
    std::vector<std::vector<std::string>> rows;
    std::string caption;
    std::vector<std::size_t> best;
};

/// Columns for rows, so that a table of few rows and many columns fits a screen.
Table transposed(const Table& table);

/// One HTML page that needs nothing but itself: no network, no script; light and dark; readable on a phone and on paper. All text
/// is escaped. Pieces appear in the order in which they are added.
class Report {
public:
    Report(std::string title, std::string subtitle);

    /// A section, listed in the page's contents.
    void add_heading(const std::string& text);
    void add_subheading(const std::string& text);
    void add_text(const std::string& text);
    /// Short pairs shown as tiles: a name, and a number in large letters.
    void add_facts(const std::vector<std::pair<std::string, std::string>>& facts);
    void add_table(const Table& table);
    /// An SVG element made by charts.h; it is not escaped.
    void add_svg(const std::string& svg, const std::string& caption);
    void add_image(const core::Image& image, const std::string& caption);
    /// Figures side by side where there is room.
    void add_figures(const std::vector<Figure>& figures);
    /// What was found, each with a sign and in plain words: fine, worth a look, broken.
    void add_findings(const std::vector<distillation::Finding>& findings);
    /// Anything that most readers skip (a config, a protocol), folded away under `summary`.
    void add_details(const std::string& summary, const std::string& text);

    std::string html() const;
    /// Writes the page atomically.
    void write(const std::filesystem::path& path) const;

private:
    std::string title_, subtitle_, body_;
    std::vector<std::string> headings_;
};

/// "12.3 ± 0.4" of a summary {"mean", "spread"} of an evaluation's result; "-" where it is missing or null.
std::string mean_and_spread(const nlohmann::json& metrics, const std::string& name, int digits = 3);

/// The curves of a metrics.jsonl ({"step": n, name: value, ...} a line), one series a name, x the step. A
/// last line cut off by a crash is left out. Throws core::Error naming file and line when another line is broken.
std::vector<Series> curves_from_jsonl(const std::filesystem::path& path);

/// Series `name` of `curves`; nothing when there is none.
std::optional<Series> curve_named(const std::vector<Series>& curves, const std::string& name);

}  // namespace atelier::evaluation
