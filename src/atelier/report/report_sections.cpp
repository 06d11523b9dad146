#include "atelier/report/report_sections.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/data/dataset.h"
#include "atelier/data/sampling.h"
#include "atelier/distillation/health.h"
#include "atelier/metrics/measuring.h"
#include "atelier/metrics/neighbours.h"
#include "atelier/metrics/two_d.h"
#include "atelier/models/identify_path.h"
#include "atelier/report/caption_report.h"
#include "atelier/report/charts.h"
#include "atelier/report/comparison.h"
#include "atelier/report/training_charts.h"

namespace atelier::report {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t points_shown = 3000, columns = 10, rows = 8;

struct SampleBatch {
    Tensor user;
    std::vector<std::int64_t> classes, students;
};

SampleBatch draw(inference::Pipeline& pipeline, std::int64_t count,
                 const std::vector<std::int64_t>& classes) {
    const auto requests = inference::class_requests(count, 0, classes, pipeline.prior());
    SampleBatch batch{
        pipeline.decode(pipeline.draw(requests)), inference::classes_of(requests), {}};
    for (const auto& owner : pipeline.route(inference::conditions_of(requests)))
        batch.students.push_back(owner.student);
    return batch;
}

std::vector<std::string> student_names(std::int64_t students) {
    std::vector<std::string> names;
    for (std::int64_t k = 0; k < students; ++k) names.push_back(fmt::format("student {}", k));
    return names;
}

/// All classes in order, so that each grid column is one class if there are as many columns as
/// classes.
std::vector<std::int64_t> every_class(const conditions::Prior& prior) {
    std::vector<std::int64_t> classes;
    for (std::int64_t c = 0; c < prior.classes(); ++c) classes.push_back(c);
    return classes;
}

std::string teacher_caption(const inference::Pipeline& teacher) {
    return fmt::format("The teacher, {} network evaluations per sample.",
                       teacher.sampling().evaluations());
}

std::string ensemble_caption(const std::string& name) {
    return fmt::format("{}, one evaluation per sample, from the same noise and classes.", name);
}

std::vector<metrics::Point> training_points(const std::string& data_path) {
    if (data_path.empty()) return {};
    constexpr std::int64_t most = 20000;
    const auto data = data::open_dataset({.path = data_path, .split = "train", .limit = 0});
    return metrics::points_of(data::to_user_space(
        data->spec(), data->samples(data::seeded_sample(*data, most, 0, "report/points"))));
}

report::Figure point_figure(inference::Pipeline& generator,
                            const std::vector<metrics::Point>& density, const std::string& title,
                            const std::string& caption) {
    const SampleBatch batch = draw(generator, points_shown, {});
    const bool one_owner = generator.students() == 1;
    return {
        report::scatter_chart({.title = title,
                               .density = density,
                               .points = metrics::points_of(batch.user),
                               .groups = one_owner ? std::vector<std::int64_t>{} : batch.students,
                               .names = one_owner ? std::vector<std::string>{title}
                                                  : student_names(generator.students())}),
        {},
        caption};
}

/// One class per column if there are few enough classes; otherwise the first classes in order.
report::Figure image_figure(inference::Pipeline& generator, const std::string& caption) {
    const std::int64_t classes = generator.prior().classes(),
                       across = classes > 1 && classes <= columns ? classes : columns;
    const SampleBatch batch = draw(generator, across * rows, every_class(generator.prior()));
    report::Figure figure{
        "", core::grid(data::images_of(batch.user), static_cast<int>(across), 2, 2), caption};
    const auto& names = generator.spec().class_names;
    if (classes > 1 && classes <= columns) {
        for (std::int64_t c = 0; c < classes; ++c)
            figure.columns.push_back(names.empty() ? fmt::format("class {}", c)
                                                   : names[static_cast<std::size_t>(c)]);
    } else if (classes > columns) {
        const auto shown = static_cast<std::size_t>(std::min(classes, across * rows));
        const std::vector<std::string> first(
            names.begin(),
            names.begin() + static_cast<std::ptrdiff_t>(std::min(shown, names.size())));
        figure.caption += names.empty() ? fmt::format(" Classes 0 to {}, row by row.", shown - 1)
                                        : fmt::format(" Row by row: {}.", fmt::join(first, ", "));
    }
    return figure;
}

/// The ensemble whose partition and neighbours are shown: the one with the most students.
const fs::path& main_ensemble(const RunModels& run) {
    return std::ranges::max_element(
               run.ensembles, {},
               [](const auto& named) {
                   return models::read_ensemble(named.second).partition.students;
               })
        ->second;
}

std::string stage_name(const RunModels& run, const fs::path& metrics) {
    return metrics.parent_path().parent_path().lexically_relative(run.folder).string();
}

/// The metrics of every stage, in the order of the run's stages.
std::vector<fs::path> stage_metrics(const RunModels& run) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(run.folder)) {
        if (entry.path().filename() == "metrics.jsonl") found.push_back(entry.path());
    }
    std::ranges::sort(found, {}, [&](const fs::path& path) {
        return std::pair{std::ranges::find(run.stages, stage_name(run, path)), path};
    });
    return found;
}

std::vector<report::StageCurves> stage_curves(const RunModels& run) {
    std::vector<report::StageCurves> stages;
    for (const fs::path& path : stage_metrics(run))
        stages.push_back({stage_name(run, path), report::curves_from_jsonl(path)});
    return stages;
}

/// Adds findings derived from the evaluation metrics.
void judge_figures(const nlohmann::json& results, std::vector<distillation::Finding>& findings) {
    using Level = distillation::Finding::Level;
    constexpr double min_agreement = 0.75, min_precision = 0.5, max_teacher_ratio = 2;
    const auto mean = [&](const std::string& model, const char* metric) {
        const auto place =
            nlohmann::json::json_pointer("/models") / model / "metrics" / metric / "mean";
        return results.contains(place) && results[place].is_number() ? results[place].get<double>()
                                                                     : std::nan("");
    };
    for (const auto& name : results.at("order")) {
        const auto model = name.get<std::string>();
        const double agreement = mean(model, "class_agreement"),
                     precision = mean(model, "precision");
        const bool teacher = model == "teacher";
        const char* advice =
            teacher ? "; students learn from these: look at them, and raise teacher.steps or "
                      "network.model_channels before the students are made"
                    : "; no better than its teacher, or see docs/health.md";
        if (agreement < min_agreement)
            findings.push_back(
                {Level::warning, fmt::format("{}: {:.0f} % of its samples are of the class that "
                                             "was asked for, by the classifier{}",
                                             model, 100 * agreement, advice)});
        if (precision < min_precision)
            findings.push_back(
                {Level::warning,
                 fmt::format("{}: {:.0f} % of its samples lie among real ones (precision){}", model,
                             100 * precision, advice)});
        const double ours = mean(model, "feature_distance"),
                     theirs = mean("teacher", "feature_distance");
        if (!teacher && ours > max_teacher_ratio * theirs)
            findings.push_back(
                {Level::warning, fmt::format("{}: its feature distance is {:.3g}, its teacher's "
                                             "{:.3g}: raise dm.steps or pairs.count",
                                             model, ours, theirs)});
    }
    if (results.value("reference_is_training_data", false)) {
        findings.push_back(
            {Level::warning,
             "there were no held-out data: all figures are against the data that the models were "
             "trained on, and say nothing of what is new (data.test_path)"});
    }
}

distillation::Metrics last_values(const fs::path& path) {
    distillation::Metrics last;
    for (const auto& series : report::curves_from_jsonl(path)) {
        if (!series.points.empty()) last.emplace_back(series.name, series.points.back()[1]);
    }
    return last;
}

}  // namespace

bool RunModels::has_teacher() const { return models::is_model_directory(folder / "teacher"); }

RunModels open_run_models(const fs::path& folder) {
    constexpr int deepest = 3;
    RunModels run{folder, {}, {}, {}};
    if (!fs::is_directory(folder)) models::reject_as_model(folder);
    if (fs::is_directory(folder)) {
        for (auto entry = fs::recursive_directory_iterator(folder);
             entry != fs::recursive_directory_iterator(); ++entry) {
            if (entry.depth() >= deepest) entry.disable_recursion_pending();
            const fs::path path = entry->path();
            if (!models::is_ensemble_directory(path)) continue;
            const fs::path own = path.filename() == "ensemble" ? path.parent_path() : path;
            const std::string name =
                own == folder ? "" : fmt::format(" ({})", own.lexically_relative(folder).string());
            run.ensembles.emplace_back(
                fmt::format("K={}{}", models::read_ensemble(path).partition.students, name), path);
        }
    }
    if (!run.has_teacher() && run.ensembles.empty()) {
        core::fail(
            "{}: there is neither a teacher nor an ensemble here; name a run directory or a folder "
            "of models",
            folder.string());
    }
    std::ranges::sort(run.ensembles);
    const fs::path stage = folder / "teacher" / "stage.json",
                   evaluation = folder / "evaluation.json";
    if (fs::exists(stage)) {
        run.data_path = core::read_json(stage).value(
            nlohmann::json::json_pointer("/settings/data/path"), std::string());
    }
    run.test_path = run.data_path;
    if (fs::exists(evaluation))
        run.test_path = core::read_json(evaluation)
                            .value(nlohmann::json::json_pointer("/identity/data"), run.data_path);
    return run;
}

nlohmann::json evaluations_of(const RunModels& run) {
    std::vector<fs::path> paths;
    for (const auto& entry : fs::recursive_directory_iterator(run.folder)) {
        if (entry.path().filename() == "evaluation.json") paths.push_back(entry.path());
    }
    std::ranges::sort(paths, {}, [](const fs::path& path) {
        return std::pair(std::distance(path.begin(), path.end()), path);
    });
    nlohmann::json merged{{"order", nlohmann::json::array()}, {"models", nlohmann::json::object()}};
    for (const fs::path& path : paths) {
        const nlohmann::json results = core::read_json(path);
        if (results.value("reference_is_training_data", false))
            merged["reference_is_training_data"] = true;
        for (const auto& name : results.at("order")) {
            const auto key = name.get<std::string>();
            if (merged["models"].contains(key)) continue;
            merged["order"].push_back(key);
            merged["models"][key] = results.at("models").at(key);
        }
    }
    return merged;
}

void add_samples(report::Report& report, const RunModels& run) {
    if (!run.has_teacher() || run.ensembles.empty()) return;
    report.add_heading("Samples");
    const auto teacher = inference::Pipeline::load(run.folder / "teacher", {.engine = run.engine});
    const bool points = teacher->spec().kind == data::SampleSpec::Kind::points;
    const auto density = points ? training_points(run.data_path) : std::vector<metrics::Point>{};
    std::vector<report::Figure> figures;
    figures.push_back(points ? point_figure(*teacher, density, "teacher", teacher_caption(*teacher))
                             : image_figure(*teacher, teacher_caption(*teacher)));
    for (const auto& [name, path] : run.ensembles) {
        const auto ensemble = inference::Pipeline::load(path, {.engine = run.engine});
        figures.push_back(points ? point_figure(*ensemble, density, name, ensemble_caption(name))
                                 : image_figure(*ensemble, ensemble_caption(name)));
    }
    report.add_figures(figures);
    if (points) report.add_text("Training data in grey; each student's points in its own colour.");
}

/// A line for each of a result's rows of classes or cells.
report::Table table_of_groups(const nlohmann::json& groups, const char* what,
                              const std::string& caption) {
    constexpr int digits = 4;  // enough for counts of samples
    report::Table table{.columns = {what}, .rows = {}, .caption = caption, .best = {}};
    std::vector<std::pair<std::string, std::string>> figures;
    for (const auto& row : groups) {
        std::vector<std::string> line{row.value("name", row.at(what).dump())};
        if (figures.empty()) {
            if (row.contains("count")) figures.emplace_back("count", "samples");
            for (const auto& named : metric_columns({{"models", {{what, {{"metrics", row}}}}}}))
                figures.push_back(named);
            for (const auto& [key, column] : figures) table.columns.push_back(column);
        }
        for (const auto& [key, column] : figures)
            line.push_back(report::mean_and_spread(row, key, digits));
        table.rows.push_back(line);
    }
    return table;
}

void add_figures(report::Report& report, const RunModels& run) {
    const nlohmann::json results = evaluations_of(run);
    if (results.at("order").empty()) return;
    report.add_heading("Figures");
    const report::Table table = report::comparison_table(results);
    report.add_table(table.rows.size() < table.columns.size() ? transposed(table) : table);
    const std::string subject =
        results.at("order").size() > 1 ? results.at("order")[1] : results.at("order")[0];
    const auto& protocol = results.at("models").at(subject).at("protocol");
    const auto seeds = protocol.value("seeds", std::vector<std::uint64_t>{});
    report.add_text(fmt::format(
        "{} samples of each model, seed{} {}, against {} real ones. Other seeds draw other "
        "samples, and figures differ by chance.",
        protocol.value("count", 0), seeds.size() == 1 ? "" : "s", fmt::join(seeds, ", "),
        protocol.value(nlohmann::json::json_pointer("/reference/count"), 0)));
    const nlohmann::json& result = results.at("models").at(subject);
    const report::Table cells =
        table_of_groups(result.value("cells", nlohmann::json::array()), "cell",
                        subject + ", cell by cell of the partition");
    if (!cells.rows.empty()) report.add_table(cells);
    const report::Table classes =
        table_of_groups(result.at("classes"), "class", subject + ", class by class");
    if (!classes.rows.empty()) report.add_table(classes);
    report.add_details("Protocol", results.at("models").at(subject).at("protocol").dump(2));
}

void add_partition(report::Report& report, const RunModels& run) {
    if (run.ensembles.empty()) return;
    const models::Ensemble ensemble = models::read_ensemble(main_ensemble(run));
    const conditions::Partition& partition = ensemble.partition;
    report.add_heading("Partition");
    report.add_svg(
        report::partition_map({.title = "who owns which class",
                               .students = partition.students,
                               .owner = partition.owner,
                               .class_names = ensemble.spec.class_names}),
        fmt::format("Made by \"{}\"; a request runs the one student that owns its class.",
                    partition.method));
}

void add_training(report::Report& report, const RunModels& run) {
    if (stage_metrics(run).empty()) return;
    report.add_heading("Training");
    const report::Curve curves[]{
        {"probe_distance", "Distance of the probe samples to the training data", "distance", true},
        {"loss", "Denoising loss", "loss", true},
        {"fake_loss", "Loss of the fake score", "loss", true},
        {"dm_gradient", "Norm of the distribution-matching gradient on the samples", "norm", true},
        {"gan_gradient", "Norm of the weighted GAN gradient on the samples", "norm", true},
        {"fake_lag", "The fake score's error over the teacher's on generated samples", "ratio",
         false}};
    std::vector<report::Figure> figures;
    const std::vector<report::StageCurves> stages = stage_curves(run);
    for (const report::Curve& curve : curves) {
        for (const report::LineChart& chart : report::training_charts(stages, curve))
            figures.push_back({report::line_chart(chart), {}, chart.title});
    }
    report.add_figures(figures);
    std::vector<distillation::Finding> findings;
    judge_figures(evaluations_of(run), findings);
    for (const fs::path& path : stage_metrics(run)) {
        if (stage_name(run, path) == "teacher") {
            const auto logged = report::curves_from_jsonl(path);
            const auto series = [&](const char* name) {
                const auto found = report::curve_named(logged, name);
                return found ? found->points : std::vector<metrics::Point>{};
            };
            for (auto& finding :
                 distillation::judge_teacher(series("loss"), series("probe_distance")))
                findings.push_back({finding.level, "teacher: " + finding.message});
        }
        const auto last = last_values(path);
        const double diversity = distillation::metric(last, "diversity");
        if (std::isnan(diversity)) continue;
        for (auto& finding : distillation::judge(
                 last, {distillation::metric(last, "saturation"), diversity, true})) {
            findings.push_back({finding.level, stage_name(run, path) + ": " + finding.message});
        }
    }
    if (findings.empty()) return;
    std::ranges::stable_sort(findings, {}, [](const distillation::Finding& finding) {
        return !finding.message.starts_with("teacher");
    });
    report.add_subheading("Health at the end");
    report.add_findings(findings);
}

void add_neighbours(report::Report& report, const RunModels& run) {
    constexpr std::int64_t shown = 8, checked = 200;
    if (run.ensembles.empty() || run.data_path.empty()) return;
    const auto ensemble = inference::Pipeline::load(main_ensemble(run), {.engine = run.engine});
    if (ensemble->spec().kind != data::SampleSpec::Kind::image) return;
    const auto train = data::open_dataset({.path = run.data_path, .split = "train", .limit = 0});
    const auto test = data::open_dataset({.path = run.test_path, .split = "test", .limit = 0});
    const auto held_out = data::seeded_sample(*test, checked, 0, "report/neighbours");
    const Tensor generated =
        ensemble->draw(inference::class_requests(checked, 0, {}, ensemble->prior()));
    const auto copied = metrics::copying(generated, test->samples(held_out), *train);
    std::vector<core::Image> pairs;
    for (std::int64_t i = 0; i < shown; ++i) {
        pairs.push_back(
            data::image_of(data::to_user_space(ensemble->spec(), generated.slice(0, i, i + 1))[0]));
        const std::int64_t nearest[]{copied.generated.indices[i][0].item<std::int64_t>()};
        pairs.push_back(
            data::image_of(data::to_user_space(train->spec(), train->samples(nearest))[0]));
    }
    report.add_heading("Is it copying?");
    report.add_image(core::grid(pairs, 4, 2, 3),
                     "Generated images, each with its nearest training image to its right.");
    report.add_text(fmt::format(
        "Median distance to the nearest training image: {:.2f} for generated images, {:.2f} for "
        "held-out real ones. {:.1f} % of the "
        "generated are nearer than the nearest 1 % of real ones; about 1 % is innocent.",
        copied.generated_median, copied.held_out_median, 100 * copied.suspicious));
    constexpr double equal = 1e-3;  // less than one pixel by one level
    const auto leaked = copied.held_out.distances.select(1, 0).lt(equal).sum().item<std::int64_t>(),
               of = copied.held_out.distances.size(0);
    if (leaked == 0) return;
    const std::string message = fmt::format(
        "{} of {} held-out images are among the training images: data leak from one into the "
        "other, so that figures of a model that copies look good, and what is said "
        "here of copying means nothing. Keep them apart (data.test_path)",
        leaked, of);
    report.add_findings({{distillation::Finding::Level::warning, message}});
    core::log::warning("{}", message);
}

void add_side_by_side(report::Report& report, const metrics::EvaluatedModels& variants,
                      const std::vector<std::string>& prompts) {
    std::vector<report::Figure> figures;
    for (const auto& [name, generator] : variants) {
        if (generator->reads_prompts()) {
            figures.push_back({"", prompt_grid(*generator, prompts), name});
            continue;
        }
        const bool points = generator->spec().kind == data::SampleSpec::Kind::points;
        figures.push_back(points ? point_figure(*generator, {}, name, name)
                                 : image_figure(*generator, name));
    }
    report.add_figures(figures);
}

void add_everything(report::Report& report, const RunModels& run) {
    const bool prompts = reads_prompts(run);
    if (prompts) add_captioned_samples(report, run);
    else add_samples(report, run);
    add_figures(report, run);
    if (prompts) {
        add_prompt_cells(report, run);
    } else {
        add_partition(report, run);
        add_neighbours(report, run);
    }
    add_training(report, run);
}

}  // namespace atelier::report
