#include "atelier/cli/report_sections.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "atelier/cli/measuring.h"
#include "atelier/data/dataset.h"
#include "atelier/distillation/health.h"
#include "atelier/evaluation/charts.h"
#include "atelier/evaluation/neighbours.h"
#include "atelier/evaluation/two_d.h"
#include "atelier/inference/generator.h"

namespace atelier::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t points_shown = 3000, columns = 10, rows = 8;

struct Drawn {
    Tensor user;
    std::vector<std::int64_t> classes, students;
};

Drawn draw(inference::Generator& generator, std::int64_t count, const std::vector<std::int64_t>& classes) {
    const inference::Wanted wanted = inference::plan(count, 0, classes, generator.prior());
    Drawn drawn{models::to_user_space(generator.form(), generator.draw(wanted)), wanted.classes, {}};
    for (const std::int64_t c : wanted.classes) drawn.students.push_back(generator.student_of(c));
    return drawn;
}

core::Image picture(const Tensor& user) {
    std::vector<core::Image> images;
    for (std::int64_t i = 0; i < user.size(0); ++i) images.push_back(models::image_of(user[i]));
    return core::grid(images, columns, 2, 2);
}

std::vector<std::string> student_names(std::int64_t students) {
    std::vector<std::string> names;
    for (std::int64_t k = 0; k < students; ++k) names.push_back(fmt::format("student {}", k));
    return names;
}

/// Class after class, so that each column of the grid is one class where there are as many classes as columns.
std::vector<std::int64_t> every_class(const conditions::Prior& prior) {
    std::vector<std::int64_t> classes;
    for (std::int64_t c = 0; c < prior.classes(); ++c) classes.push_back(c);
    return classes;
}

void add_point_samples(evaluation::Report& report, inference::Generator& teacher, inference::Generator& ensemble, const std::string& data_path) {
    const auto data = data::open_dataset({.path = data_path, .split = "train", .limit = 20000});
    std::vector<std::int64_t> all(static_cast<std::size_t>(data->size()));
    std::iota(all.begin(), all.end(), 0);
    const auto density = evaluation::points_of(models::to_user_space(data->form(), data->samples(all)));
    const Drawn many = draw(teacher, points_shown, {}), one = draw(ensemble, points_shown, {});
    report.add_figures({{evaluation::scatter_chart({.title = "teacher", .density = density, .points = evaluation::points_of(many.user),
                                                    .groups = {}, .names = {"teacher"}}), {},
                         fmt::format("The teacher, {} network evaluations a point, over the training data (grey).", teacher.sampling().evaluations())},
                        {evaluation::scatter_chart({.title = "students", .density = density, .points = evaluation::points_of(one.user),
                                                    .groups = one.students, .names = student_names(ensemble.students())}), {},
                         "The students, one evaluation a point, coloured by the student that drew it."}});
}

void add_image_samples(evaluation::Report& report, inference::Generator& teacher, inference::Generator& ensemble) {
    const auto classes = every_class(ensemble.prior());
    report.add_figures({{"", picture(draw(teacher, columns * rows, classes).user),
                         fmt::format("The teacher, {} network evaluations an image.", teacher.sampling().evaluations())},
                        {"", picture(draw(ensemble, columns * rows, classes).user), "The students, one evaluation an image, from the same noise and classes."}});
}

bool has_models(const fs::path& run) {
    return models::is_ensemble_directory(run / "ensemble") && models::is_model_directory(run / "teacher");
}

std::vector<fs::path> stage_folders(const fs::path& run) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(run)) {
        if (entry.path().filename() == "metrics.jsonl") found.push_back(entry.path());
    }
    std::ranges::sort(found);
    return found;
}

std::string stage_name(const fs::path& run, const fs::path& metrics) {
    return metrics.parent_path().parent_path().lexically_relative(run).string();
}

/// The same number of every stage that logs it, in one chart.
void add_curves(evaluation::Report& report, const fs::path& run, const std::string& metric, const std::string& words, bool log_y) {
    evaluation::LineChart chart{.title = words, .x_label = "step", .y_label = "", .series = {}, .log_y = log_y};
    for (const fs::path& path : stage_folders(run)) {
        auto curve = evaluation::curve_named(evaluation::curves_from_jsonl(path), metric);
        if (!curve) continue;
        curve->name = stage_name(run, path);
        chart.series.push_back(*curve);
    }
    if (!chart.series.empty()) report.add_svg(evaluation::line_chart(chart), words);
}

distillation::Metrics last_values(const fs::path& path) {
    distillation::Metrics last;
    for (const auto& series : evaluation::curves_from_jsonl(path)) {
        if (!series.points.empty()) last.emplace_back(series.name, series.points.back()[1]);
    }
    return last;
}

}  // namespace

void add_samples(evaluation::Report& report, const fs::path& run, const std::string& data_path) {
    if (!has_models(run)) return;
    report.add_heading("Samples");
    const auto teacher = inference::open_generator(run / "teacher");
    const auto ensemble = inference::open_generator(run / "ensemble");
    if (ensemble->form().kind == models::DataForm::Kind::points) add_point_samples(report, *teacher, *ensemble, data_path);
    else add_image_samples(report, *teacher, *ensemble);
}

void add_figures(evaluation::Report& report, const fs::path& run) {
    if (!fs::exists(run / "evaluation.json")) return;
    const nlohmann::json results = core::read_json(run / "evaluation.json");
    report.add_heading("Figures");
    report.add_table(comparison_table(results));
    const std::string subject = results.at("order").back().get<std::string>();
    evaluation::Table per_class{.columns = {"class"}, .rows = {}, .caption = subject + ", a row a class", .best = {}};
    for (const auto& row : results.at("models").at(subject).at("classes")) {
        std::vector<std::string> cells{row.value("name", row.at("class").dump())};
        if (per_class.columns.size() == 1) {
            for (const auto& [key, value] : row.items()) {
                if (value.is_object()) per_class.columns.push_back(key);
            }
        }
        for (std::size_t i = 1; i < per_class.columns.size(); ++i) cells.push_back(evaluation::mean_and_spread(row, per_class.columns[i]));
        per_class.rows.push_back(cells);
    }
    report.add_table(per_class);
    report.add_details("Protocol", results.at("models").at(subject).at("protocol").dump(2));
}

void add_partition(evaluation::Report& report, const fs::path& run) {
    const fs::path path = run / "partition.json";
    if (!fs::exists(path)) return;
    const auto partition = conditions::partition_from_json(core::read_json(path), path.string());
    std::vector<std::string> names;
    if (models::is_model_directory(run / "teacher")) names = models::read_model_config(run / "teacher").form.class_names;
    report.add_heading("Partition");
    report.add_svg(evaluation::partition_map({.title = "who owns which class", .students = partition.students, .owner = partition.owner, .class_names = names}),
                   fmt::format("Made by \"{}\"; a request runs the one student that owns its class.", partition.method));
}

void add_training(evaluation::Report& report, const fs::path& run) {
    report.add_heading("Training");
    add_curves(report, run, "probe_distance", "Distance of the probe samples to the training data", true);
    add_curves(report, run, "loss", "Loss of teacher and teacher score matching", true);
    add_curves(report, run, "fake_loss", "Loss of the fake score", true);
    add_curves(report, run, "dm_gradient", "Norm of the distribution-matching gradient on the samples", true);
    add_curves(report, run, "gan_gradient", "Norm of the weighted GAN gradient on the samples", true);
    add_curves(report, run, "fake_lag", "The fake score's error over the teacher's on generated samples", false);
    std::vector<distillation::Finding> findings;
    for (const fs::path& path : stage_folders(run)) {
        const auto last = last_values(path);
        const double diversity = distillation::metric(last, "diversity");
        if (std::isnan(diversity)) continue;
        for (auto& finding : distillation::judge(last, {distillation::metric(last, "saturation"), diversity, true})) {
            findings.push_back({finding.level, stage_name(run, path) + ": " + finding.words});
        }
    }
    if (findings.empty()) return;
    report.add_subheading("Health at the end");
    report.add_findings(findings);
}

void add_neighbours(evaluation::Report& report, const fs::path& run, const std::string& data_path) {
    constexpr std::int64_t shown = 8, checked = 200;
    if (!has_models(run)) return;
    const auto ensemble = inference::open_generator(run / "ensemble");
    if (ensemble->form().kind != models::DataForm::Kind::image) return;
    const auto train = data::open_dataset({.path = data_path, .split = "train", .limit = 0});
    const auto test = data::open_dataset({.path = data_path, .split = "test", .limit = checked});
    std::vector<std::int64_t> first(static_cast<std::size_t>(test->size()));
    std::iota(first.begin(), first.end(), 0);
    const Tensor generated = ensemble->draw(inference::plan(checked, 0, {}, ensemble->prior()));
    const auto copied = evaluation::copying(generated, test->samples(first), *train);
    std::vector<core::Image> pairs;
    for (std::int64_t i = 0; i < shown; ++i) {
        pairs.push_back(models::image_of(models::to_user_space(ensemble->form(), generated.slice(0, i, i + 1))[0]));
        const std::int64_t nearest[]{copied.generated.indices[i][0].item<std::int64_t>()};
        pairs.push_back(models::image_of(models::to_user_space(train->form(), train->samples(nearest))[0]));
    }
    report.add_heading("Is it copying?");
    report.add_image(core::grid(pairs, 4, 2, 3), "Generated images, each with its nearest training image to its right.");
    report.add_text(fmt::format("Median distance to the nearest training image: {:.2f} for generated images, {:.2f} for held-out real ones. {:.1f} % of the "
                                "generated are nearer than the nearest 1 % of real ones; about 1 % is innocent.",
                                copied.generated_median, copied.held_out_median, 100 * copied.suspicious));
}

}  // namespace atelier::cli
