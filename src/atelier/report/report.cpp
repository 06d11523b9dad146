#include "atelier/report/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/report/markup.h"
#include "atelier/report/report_style.h"

namespace atelier::report {

namespace {

/// Whether a cell starts with a number: "-0.3", "12.1 ± 0.4", "95 %".
bool is_numeric(const std::string& cell) {
    const std::size_t first = cell.find_first_not_of("+-");
    return cell == "-" || cell.empty() ||
           (first != std::string::npos && cell[first] >= '0' && cell[first] <= '9');
}

std::string row_of(const std::vector<std::string>& cells, const std::vector<bool>& numeric,
                   std::string_view tag) {
    std::string html;
    for (std::size_t i = 0; i < cells.size(); ++i) {
        const bool right = i < numeric.size() && numeric[i];
        html += fmt::format("<{0}{1}>{2}</{0}>", tag, right ? " class=\"number\"" : "",
                            escape_markup(cells[i]));
    }
    return html;
}

std::vector<bool> numeric_columns(const Table& table) {
    std::vector<bool> numeric;
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
        numeric.push_back(i > 0 && std::ranges::all_of(table.rows, [i](const auto& row) {
                              return i >= row.size() || is_numeric(row[i]);
                          }));
    }
    return numeric;
}

std::string figure_html(const Figure& figure, std::string_view attributes) {
    std::string html = fmt::format("<figure{}>{}", attributes, figure.svg);
    if (!figure.columns.empty()) {
        html +=
            fmt::format("<div class=\"columns\" style=\"grid-template-columns:repeat({},1fr)\">",
                        figure.columns.size());
        for (const std::string& name : figure.columns)
            html += fmt::format("<span>{}</span>", escape_markup(name));
        html += "</div>";
    }
    if (figure.image) {
        html += fmt::format(
            "<img{} alt=\"{}\" width=\"{}\" height=\"{}\" src=\"data:image/png;base64,{}\">",
            figure.columns.empty() ? "" : " class=\"wide\"", escape_markup(figure.caption),
            figure.image->width, figure.image->height, base64(core::encode_png(*figure.image)));
    }
    if (!figure.caption.empty())
        html += fmt::format("<figcaption>{}</figcaption>", escape_markup(figure.caption));
    return html + "</figure>\n";
}

void add_line(const nlohmann::json& line, std::vector<Series>& curves,
              std::map<std::string, std::size_t>& index_of) {
    const double step = line.at("step").get<double>();
    for (const auto& [name, value] : line.items()) {
        if (name == "step" || !value.is_number()) continue;
        const auto [entry, is_new] = index_of.try_emplace(name, curves.size());
        if (is_new) curves.push_back({name, {}});
        curves[entry->second].points.push_back({step, value.get<double>()});
    }
}

}  // namespace

Table transposed(const Table& table) {
    Table result{.columns = {table.columns.empty() ? "" : table.columns[0]},
                 .rows = {},
                 .caption = table.caption,
                 .best = {}};
    for (const auto& row : table.rows) result.columns.push_back(row.at(0));
    for (std::size_t i = 1; i < table.columns.size(); ++i) {
        result.rows.push_back({table.columns[i]});
        for (const auto& row : table.rows) result.rows.back().push_back(row.at(i));
    }
    return result;
}

Report::Report(std::string title, std::string subtitle)
    : title_(std::move(title)), subtitle_(std::move(subtitle)) {}

void Report::add_heading(const std::string& text) {
    body_ += fmt::format("<h2 id=\"s{}\">{}</h2>\n", headings_.size(), escape_markup(text));
    headings_.push_back(text);
}

void Report::add_subheading(const std::string& text) {
    body_ += fmt::format("<h3>{}</h3>\n", escape_markup(text));
}

void Report::add_text(const std::string& text) {
    body_ += fmt::format("<p>{}</p>\n", escape_markup(text));
}

void Report::add_facts(const std::vector<std::pair<std::string, std::string>>& facts) {
    body_ += "<dl class=\"facts\">";
    for (const auto& [name, value] : facts) {
        body_ += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", escape_markup(name),
                             escape_markup(value));
    }
    body_ += "</dl>\n";
}

void Report::add_table(const Table& table) {
    const std::vector<bool> numeric = numeric_columns(table);
    body_ += "<div class=\"scroll\"><table>";
    if (!table.caption.empty())
        body_ += fmt::format("<caption>{}</caption>", escape_markup(table.caption));
    body_ +=
        fmt::format("<thead><tr>{}</tr></thead><tbody>\n", row_of(table.columns, numeric, "th"));
    for (std::size_t i = 0; i < table.rows.size(); ++i) {
        const bool best = std::ranges::find(table.best, i) != table.best.end();
        body_ += fmt::format("<tr{}>{}</tr>\n", best ? " class=\"best\"" : "",
                             row_of(table.rows[i], numeric, "td"));
    }
    body_ += "</tbody></table></div>\n";
}

void Report::add_svg(const std::string& svg, const std::string& caption) {
    body_ += figure_html({svg, std::nullopt, caption}, " class=\"alone\"");
}

void Report::add_image(const core::Image& image, const std::string& caption) {
    body_ += figure_html({"", image, caption}, " class=\"alone\"");
}

void Report::add_figures(const std::vector<Figure>& figures) {
    body_ += "<div class=\"figures\">\n";
    for (const Figure& figure : figures) body_ += figure_html(figure, "");
    body_ += "</div>\n";
}

void Report::add_findings(const std::vector<distillation::Finding>& findings) {
    using Level = distillation::Finding::Level;
    body_ += "<ul class=\"findings\">\n";
    for (const distillation::Finding& finding : findings) {
        const auto [kind, sign] = finding.level == Level::ok ? std::pair{"ok", "✓ fine"}
                                  : finding.level == Level::warning
                                      ? std::pair{"warning", "! warning"}
                                      : std::pair{"collapse", "✗ collapse"};
        body_ += fmt::format("<li class=\"{}\"><b>{}</b><span>{}</span></li>\n", kind, sign,
                             escape_markup(finding.message));
    }
    body_ += "</ul>\n";
}

void Report::add_details(const std::string& summary, const std::string& text) {
    body_ += fmt::format("<details><summary>{}</summary><pre>{}</pre></details>\n",
                         escape_markup(summary), escape_markup(text));
}

std::string Report::html() const {
    std::string contents;
    for (std::size_t i = 0; i < headings_.size(); ++i)
        contents += fmt::format("<a href=\"#s{}\">{}</a>", i, escape_markup(headings_[i]));
    return fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
        "'unsafe-inline'; img-src data:\">\n"
        "<title>{0}</title><style>{1}</style></head>\n<body><main>\n<h1>{0}</h1><p "
        "class=\"subtitle\">{2}</p>\n{3}{4}</main></body></html>\n",
        escape_markup(title_), report_style, escape_markup(subtitle_),
        contents.empty() ? "" : "<nav>" + contents + "</nav>\n", body_);
}

void Report::write(const std::filesystem::path& path) const { core::write_text(path, html()); }

std::string mean_and_spread(const nlohmann::json& metrics, const std::string& name, int digits) {
    const auto found = metrics.find(name);
    if (found == metrics.end() || !found->is_object() || !found->at("mean").is_number()) return "-";
    const std::string mean = fmt::format("{:.{}g}", found->at("mean").get<double>(), digits);
    const nlohmann::json& spread = found->at("spread");
    return spread.is_number() ? fmt::format("{} ± {:.2g}", mean, spread.get<double>()) : mean;
}

std::vector<Series> curves_from_jsonl(const std::filesystem::path& path) {
    const std::string text = core::read_text(path);
    std::vector<Series> curves;
    std::map<std::string, std::size_t> index_of;
    std::size_t number = 1;
    for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
         begin = end + 1, ++number) {
        const std::string where = fmt::format("{} line {}", path.string(), number);
        const nlohmann::json line =
            core::parse_json(std::string_view(text).substr(begin, end - begin), where);
        if (!line.is_object() || !line.contains("step") || !line["step"].is_number())
            core::fail("{}: expected an object with a \"step\"", where);
        add_line(line, curves, index_of);
    }
    return curves;
}

std::optional<Series> curve_named(const std::vector<Series>& curves, const std::string& name) {
    const auto found = std::ranges::find(curves, name, &Series::name);
    return found == curves.end() ? std::nullopt : std::optional(*found);
}

}  // namespace atelier::report
