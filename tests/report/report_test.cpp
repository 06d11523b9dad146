#include "atelier/report/report.h"

#include <gtest/gtest.h>

#include <cmath>

#include "atelier/core/atomic_file.h"
#include "atelier/report/markup.h"
#include "atelier/report/svg.h"
#include "atelier/report/training_charts.h"
#include "core/test_folder.h"

namespace atelier::report {
namespace {

using core::error_of;

std::size_t occurrences(const std::string& text, const std::string& part) {
    std::size_t count = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
        ++count;
    return count;
}

std::vector<std::string> texts_of(const std::vector<Tick>& ticks) {
    std::vector<std::string> texts;
    for (const Tick& tick : ticks) texts.push_back(tick.text);
    return texts;
}

TEST(Markup, is_escaped_and_base64_is_padded) {
    EXPECT_EQ(escape_markup("<a href='x'>&\"\x01é"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot; é");
    const auto encoded = [](const std::string& text) {
        return base64(std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
    };
    EXPECT_EQ(encoded(""), "");  // RFC 4648, section 10
    EXPECT_EQ(encoded("f"), "Zg==");
    EXPECT_EQ(encoded("fo"), "Zm8=");
    EXPECT_EQ(encoded("foo"), "Zm9v");
    EXPECT_EQ(encoded("foobar"), "Zm9vYmFy");
}

TEST(Ticks, are_round_numbers_within_the_axis) {
    EXPECT_EQ(texts_of(linear_ticks(0, 10, 5)),
              (std::vector<std::string>{"0", "2", "4", "6", "8", "10"}));
    EXPECT_EQ(texts_of(linear_ticks(-0.13, 0.11, 5)),
              (std::vector<std::string>{"-0.1", "-0.05", "0", "0.05", "0.1"}));
    EXPECT_EQ(texts_of(linear_ticks(0, 40000, 4)),
              (std::vector<std::string>{"0", "10k", "20k", "30k", "40k"}));
    EXPECT_EQ(texts_of(logarithmic_ticks(0.5, 30)),
              (std::vector<std::string>{"0.5", "1", "2", "5", "10", "20"}));
    EXPECT_EQ(texts_of(logarithmic_ticks(1e-5, 1)),
              (std::vector<std::string>{"1e-05", "0.0001", "0.001", "0.01", "0.1", "1"}));
    EXPECT_EQ(linear_ticks(3, 3, 5).size(), 1u);
}

TEST(LineChart, draws_lines_and_breaks_them_at_non_finite_values) {
    const LineChart chart{
        "loss <x>", "step", "loss", {{"a", {{0, 1}, {1, NAN}, {2, 3}, {3, 2}}}, {"b", {{0, 2}}}}};
    const std::string svg = line_chart(chart);
    EXPECT_NE(svg.find("<title>loss &lt;x&gt;</title>"), std::string::npos);
    EXPECT_EQ(occurrences(svg, "stroke-linejoin=\"round\""), 1u);
    EXPECT_EQ(occurrences(svg, "stroke-width=\"7\""), 2u) << "values that stand alone";
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(LineChart, drops_non_positive_values_on_log_axes_and_thins_long_series) {
    Series series{"a", {}};
    for (int i = 0; i < 100000; ++i)
        series.points.push_back({static_cast<double>(i), i == 777 ? 1e6 : i % 2 ? 1.0 : -1.0});
    const std::string svg = line_chart({"", "", "", {series}, true});
    EXPECT_LT(svg.size(), 20000u);
    EXPECT_EQ(occurrences(svg, "stroke-linejoin=\"round\""), 1u) << "the running mean";
    EXPECT_EQ(occurrences(svg, "stroke-width=\"2.5\""), 1u) << "all of it";
    EXPECT_NE(svg.find(">1M<"), std::string::npos);  // the spike is still there
    EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(LineChart, labels_its_axes_however_short_they_are) {
    const std::string svg =
        line_chart({"", "step", "feature distance", {{"a", {{0, 0.52}, {100, 0.98}}}}, true});
    EXPECT_NE(svg.find(">feature distance<"), std::string::npos);
    EXPECT_NE(svg.find(">step<"), std::string::npos);
    for (const char* tick : {">0.6<", ">0.7<", ">0.8<", ">0.9<"})
        EXPECT_NE(svg.find(tick), std::string::npos) << tick;
}

TEST(LineChart, shows_single_values_as_dots_and_marks_within_its_axis) {
    const LineChart chart{.title = "",
                          .series = {{"a", {{0, 1}, {10, 2}}}, {"b", {{5, 1.5}}}},
                          .marks = {{4, "ADM"}, {10, "the end"}}};
    const std::string svg = line_chart(chart);
    EXPECT_EQ(occurrences(svg, "stroke-width=\"7\""), 1U) << "the dot";
    EXPECT_EQ(occurrences(svg, "stroke-linejoin=\"round\""), 1U) << "the line";
    EXPECT_NE(svg.find(">ADM<"), std::string::npos);
    EXPECT_EQ(svg.find(">the end<"), std::string::npos);
}

TEST(LineChart, has_a_legend_of_lines_which_differ_where_colours_repeat) {
    LineChart chart;
    for (int k = 0; k < 10; ++k)
        chart.series.push_back(
            {k == 3 ? "" : fmt::format("student {}", k), {{0, 1.0 + k}, {1, 2.0 + k}}});
    const std::string svg = line_chart(chart);
    EXPECT_EQ(occurrences(svg, ">student "), 9U);
    EXPECT_EQ(svg.find(">student 3<"), std::string::npos);
    EXPECT_EQ(occurrences(svg, "h14\""), 9U) << "a piece of each line";
    // Lines and legend of students 8 and 9.
    EXPECT_EQ(occurrences(svg, "stroke-dasharray=\"6 4\""), 4U);
    EXPECT_EQ(line_attributes(1), fmt::format("stroke=\"{}\"", group_colour(1)));
}

TEST(TrainingCharts, give_every_student_one_line_of_its_colour_through_dm_and_adm) {
    const auto stage = [](const std::string& name, double length, double value) {
        return StageCurves{name,
                           {{"fake_loss", {{length / 2, value}, {length, value + 1}}},
                            {"probe_distance", {{length, value}}}}};
    };
    std::vector<StageCurves> stages{{"teacher", {{"loss", {{1, 2}}}, {"probe_distance", {{9, 1}}}}},
                                    {"students/0/tsm", {{"loss", {{5, 1}}}}},
                                    stage("students/0/dm", 100, 1),
                                    stage("students/0/adm", 20, 3),
                                    stage("students/2/dm", 100, 5),
                                    stage("trunk/dm", 300, 7)};
    const auto charts = training_charts(stages, {"fake_loss", "Loss", "loss", true});
    ASSERT_EQ(charts.size(), 1U);
    const LineChart& chart = charts[0];
    EXPECT_EQ(chart.title, "Loss (DM, then ADM)");
    ASSERT_EQ(chart.series.size(), 4U);
    EXPECT_EQ(chart.series[0].name, "student 0");
    ASSERT_EQ(chart.series[0].points.size(), 5U);
    EXPECT_EQ(chart.series[0].points[1], (metrics::Point{100, 2}));
    EXPECT_TRUE(std::isnan(chart.series[0].points[2][1])) << "the stages are not connected";
    EXPECT_EQ(chart.series[0].points[3], (metrics::Point{110, 3}));
    EXPECT_EQ(chart.series[1].name, "") << "student 1 has not begun";
    EXPECT_EQ(chart.series[2].name, "student 2");
    EXPECT_EQ(chart.series[3].name, "trunk");
    ASSERT_EQ(chart.marks.size(), 1U);
    EXPECT_EQ(chart.marks[0].x, 100);

    const auto of_all = training_charts(stages, {"probe_distance", "Distance", "distance", true});
    ASSERT_EQ(of_all.size(), 2U);
    EXPECT_EQ(of_all[0].title, "Distance (teacher)");
    EXPECT_EQ(of_all[1].x_label, "generator updates");
    EXPECT_EQ(training_charts(stages, {"loss", "Loss", "loss", true})[1].title, "Loss (TSM)");
    EXPECT_TRUE(training_charts(stages, {"gan_gradient", "", "", true}).empty());
    // Where students begin ADM at different steps, there is no line at which all do.
    stages.push_back(stage("students/2/adm", 20, 6));
    stages[4] = stage("students/2/dm", 60, 5);
    EXPECT_TRUE(training_charts(stages, {"fake_loss", "", "", true})[0].marks.empty());
}

TEST(Table, is_transposed_to_fit_a_screen) {
    const Table table{.columns = {"model", "fid", "recall"},
                      .rows = {{"teacher", "1", "2"}, {"students", "3", "4"}},
                      .caption = "c",
                      .best = {}};
    const Table turned = transposed(table);
    EXPECT_EQ(turned.columns, (std::vector<std::string>{"model", "teacher", "students"}));
    EXPECT_EQ(turned.rows,
              (std::vector<std::vector<std::string>>{{"fid", "1", "3"}, {"recall", "2", "4"}}));
    EXPECT_EQ(turned.caption, "c");
}

TEST(Charts, without_data_say_so) {
    EXPECT_NE(line_chart({}).find("no data"), std::string::npos);
    EXPECT_NE(bar_chart({}).find("no data"), std::string::npos);
    EXPECT_NE(scatter_chart({}).find("</svg>"), std::string::npos);
    EXPECT_EQ(
        partition_map({.title = "", .students = 0, .owner = {}, .class_names = {}}).find("nan"),
        std::string::npos);
}

TEST(BarChart, draws_values_with_their_spread_and_skips_missing_ones) {
    const std::string svg = bar_chart(
        {"d", {"teacher", "K=4"}, {{"T-shirt", {2.0, NAN}, {0.5, NAN}}, {"Bag", {-1.0, 3.0}, {}}}});
    EXPECT_NE(svg.find("2 ± 0.5"), std::string::npos);
    EXPECT_EQ(occurrences(svg, "<rect"), 2u + 3u);  // the legend's and the bars
    EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(ScatterChart, colours_groups_and_counts_points_outside) {
    ScatterChart chart{"s",
                       {{-1, -1}, {1, 1}},
                       {{0, 0}, {0.5, 0.5}, {9, 9}, {NAN, 0}},
                       {0, 1, 1, 0},
                       {"student 0", "student 1"}};
    const std::string svg = scatter_chart(chart);
    EXPECT_NE(svg.find("2 of 4 points lie outside"), std::string::npos);
    EXPECT_NE(svg.find(fmt::format("stroke=\"{}\"", group_colour(1))), std::string::npos);
    EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(PartitionMap, gives_every_class_a_cell_in_its_owners_colour) {
    const std::string svg = partition_map({"p", 2, {0, 1, 1}, {"a", "b", "c"}});
    EXPECT_EQ(occurrences(svg, "<rect"), 3u);
    EXPECT_EQ(occurrences(svg, std::string(group_colour(1))), 2u);
    EXPECT_NE(svg.find("student 1 (2)"), std::string::npos);
    EXPECT_EQ(occurrences(partition_map({"p", 4, std::vector<std::int64_t>(1000, 3), {}}), "<rect"),
              1000u);
}

TEST(ScatterImage, puts_points_where_they_belong) {
    const core::Image image = scatter_image({{-1, 1}, {1, -1}, {5, 5}}, {0, 1, 1}, 101, 1.0);
    const auto pixel = [&](int row, int column) {
        const auto* p = &image.pixels[static_cast<std::size_t>(3 * (row * 101 + column))];
        return std::array<std::uint8_t, 3>{p[0], p[1], p[2]};
    };
    EXPECT_EQ(pixel(0, 0), group_rgb(0));
    EXPECT_EQ(pixel(100, 100), group_rgb(1));
    EXPECT_EQ(pixel(0, 100), (std::array<std::uint8_t, 3>{255, 255, 255}));
    EXPECT_EQ(group_rgb(0), (std::array<std::uint8_t, 3>{0x3b, 0x82, 0xc4}));
}

TEST(Report, escapes_all_text_and_needs_no_network) {
    Report report("a <b>", "sub & title");
    report.add_heading("<i>one</i>");
    report.add_text("<script>alert(1)</script>");
    report.add_facts({{"<k>", "<v>"}});
    report.add_table({{"name", "<n>"}, {{"<r>", "1.5"}, {"x", "-"}}, "<c>", {0}});
    report.add_findings({{distillation::Finding::Level::warning, "<w>"},
                         {distillation::Finding::Level::ok, "good"}});
    report.add_details("<s>", "{\"a\": 1}");
    report.add_image({2, 2, 1, {0, 255, 255, 0}}, "\"picture\"");
    report.add_figures({{line_chart({}), std::nullopt, "a chart"}});
    const std::string html = report.html();
    for (const char* bad : {"<script", "<b>,", "<i>one", "<v>", "<n>", "<r>", "<c>", "<w>", "<k>"})
        EXPECT_EQ(html.find(bad), std::string::npos) << bad;
    EXPECT_EQ(occurrences(html, "http"),
              occurrences(html, "http-equiv") + occurrences(html, "http://www.w3.org/2000/svg"));
    EXPECT_NE(html.find("data:image/png;base64,iVBORw0KGgo"), std::string::npos);
    EXPECT_NE(html.find("<td class=\"number\">1.5</td>"), std::string::npos);
    EXPECT_NE(html.find("<a href=\"#s0\">&lt;i&gt;one"), std::string::npos);
    EXPECT_NE(html.find("! warning"), std::string::npos);

    core::TestFolder folder;
    report.write(folder / "report.html");
    EXPECT_EQ(core::read_text(folder / "report.html"), html);
}

TEST(Report, shows_mean_and_spread_and_a_dash_for_what_is_missing) {
    const nlohmann::json metrics{{"a", {{"mean", 12.345}, {"spread", 0.4}}},
                                 {"b", {{"mean", 2.0}, {"spread", nullptr}}},
                                 {"c", {{"mean", nullptr}, {"spread", nullptr}}}};
    EXPECT_EQ(mean_and_spread(metrics, "a"), "12.3 ± 0.4");
    EXPECT_EQ(mean_and_spread(metrics, "b"), "2");
    EXPECT_EQ(mean_and_spread(metrics, "c"), "-");
    EXPECT_EQ(mean_and_spread(metrics, "d"), "-");
}

TEST(Curves, are_read_from_a_run_log_with_a_truncated_last_line) {
    core::TestFolder folder;
    core::write_text(folder / "metrics.jsonl",
                     "{\"step\":50,\"loss\":1.5}\n{\"step\":100,\"loss\":1,\"probe_distance\":3}\n{"
                     "\"step\":150,\"lo");
    const std::vector<Series> curves = curves_from_jsonl(folder / "metrics.jsonl");
    ASSERT_EQ(curves.size(), 2u);
    EXPECT_EQ(curve_named(curves, "loss")->points,
              (std::vector<metrics::Point>{{50, 1.5}, {100, 1}}));
    EXPECT_EQ(curve_named(curves, "probe_distance")->points.size(), 1u);
    EXPECT_FALSE(curve_named(curves, "nothing"));
}

TEST(Curves, name_the_invalid_line) {
    core::TestFolder folder;
    core::write_text(folder / "metrics.jsonl", "{\"step\":50}\nnonsense\n{\"step\":100}\n");
    EXPECT_NE(
        error_of([&] { curves_from_jsonl(folder / "metrics.jsonl"); }).find("metrics.jsonl line 2"),
        std::string::npos);
}

}  // namespace
}  // namespace atelier::report
