#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "atelier/core/image_file.h"
#include "atelier/distillation/stage.h"
#include "atelier/report/charts.h"

namespace atelier::report {

/// A figure of a report with its caption. Either an SVG element (of charts.h) or an image.
struct Figure {
    std::string svg;
    std::optional<core::Image> image;
    std::string caption;
    std::vector<std::string> columns{};  // labels written above the image's columns
};

/// Rows of text; a column whose cells are all numeric (or "-") is right-aligned. `best` rows are
/// emphasised.
struct Table {
    std::vector<std::string> columns;
    std::vector<std::vector<std::string>> rows;
    std::string caption;
    std::vector<std::size_t> best;
};

/// Swaps rows and columns, so that a table of few rows and many columns fits the screen.
Table transposed(const Table& table);

/// A self-contained HTML page without scripts or external resources, with light and dark themes,
/// for screens, phones and paper. All text is escaped. Elements appear in the order added.
class Report {
public:
    Report(std::string title, std::string subtitle);

    /// Starts a section, listed in the page's contents.
    void add_heading(const std::string& text);
    void add_subheading(const std::string& text);
    void add_text(const std::string& text);
    /// Tiles of a name and a value in large type.
    void add_facts(const std::vector<std::pair<std::string, std::string>>& facts);
    void add_table(const Table& table);
    /// An SVG element of charts.h; not escaped.
    void add_svg(const std::string& svg, const std::string& caption);
    void add_image(const core::Image& image, const std::string& caption);
    /// Figures side by side where space allows.
    void add_figures(const std::vector<Figure>& figures);
    /// Health findings, each with its level and message.
    void add_findings(const std::vector<distillation::Finding>& findings);
    /// Text that most readers skip (a config, a protocol), collapsed under `summary`.
    void add_details(const std::string& summary, const std::string& text);

    std::string html() const;
    /// Writes the page atomically.
    void write(const std::filesystem::path& path) const;

private:
    std::string title_, subtitle_, body_;
    std::vector<std::string> headings_;
};

/// "12.3 ± 0.4" for a {"mean", "spread"} summary of an evaluation result; "-" if missing or null.
std::string mean_and_spread(const nlohmann::json& metrics, const std::string& name, int digits = 3);

/// The curves of a metrics.jsonl (one {"step": n, name: value, ...} per line): one series per name
/// over the step. A last line truncated by a crash is ignored. Throws core::Error naming file and
/// line on any other invalid line.
std::vector<Series> curves_from_jsonl(const std::filesystem::path& path);

/// Series `name` of `curves`, or nullopt.
std::optional<Series> curve_named(const std::vector<Series>& curves, const std::string& name);

}  // namespace atelier::report
