#include "atelier/pipeline/partition_prompts.h"

#include <algorithm>
#include <iostream>
#include <map>
#include <optional>

#include <ATen/ops/linalg_svd.h>
#include <fmt/ranges.h>

#include "atelier/backends/torch/torch.h"
#include "atelier/conditions/prompt_partition.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/core/random_streams.h"
#include "atelier/data/prompt_file.h"
#include "atelier/report/report.h"

namespace atelier::pipeline {

namespace {

namespace fs = std::filesystem;
using conditions::Embeddings;
using conditions::PromptPartition;
using conditions::PromptSurvey;

constexpr double border = 0.02;  // a prompt whose two best scores differ by less is at a border
constexpr std::int64_t max_mapped = 2000;  // prompts on the map

/// The prompts of some rows, and the row of the first empty prompt; the file itself may be larger
/// than memory.
struct NamedPrompts {
    std::map<std::int64_t, std::string> text;
    std::optional<std::int64_t> empty;
};

/// Throws core::Error unless the file has one prompt per row.
void check_count(const std::string& path, std::int64_t rows) {
    const std::int64_t lines = data::count_prompts(path);
    if (lines != rows)
        core::fail(
            "{}: has {} lines, the embeddings have {} rows; there must be one prompt per row, in "
            "order",
            path, lines, rows);
}

NamedPrompts named_prompts(const std::string& path, const PromptSurvey& survey) {
    NamedPrompts named;
    if (path.empty()) return named;
    for (const auto& cell : survey.cells) {
        for (const std::int64_t row : cell.central) named.text[row];
    }
    data::PromptFile file(path);
    for (std::string line; file.next(line);) {
        const std::int64_t row = file.line() - 1;
        if (line.empty() && !named.empty) named.empty = row;
        if (const auto found = named.text.find(row); found != named.text.end())
            found->second = line;
    }
    return named;
}

std::int64_t null_owner(const PromptArguments& arguments, const NamedPrompts& named,
                        const PromptSurvey& survey) {
    if (arguments.null_owner >= 0) return arguments.null_owner;
    if (named.empty) return survey.owners[static_cast<std::size_t>(*named.empty)];
    return std::ranges::max_element(survey.cells, {}, &PromptSurvey::Cell::size) -
           survey.cells.begin();
}

/// For each student, the fraction of its prompts that are at a border.
std::vector<double> border_shares(const PromptSurvey& survey) {
    std::vector<double> shares(survey.cells.size());
    for (std::size_t i = 0; i < survey.owners.size(); ++i)
        shares[static_cast<std::size_t>(survey.owners[i])] += survey.margins[i] < border;
    for (std::size_t k = 0; k < shares.size(); ++k)
        shares[k] /= static_cast<double>(std::max<std::int64_t>(1, survey.cells[k].size));
    return shares;
}

double quantile(std::vector<float> values, double fraction) {
    const auto position = values.begin() + static_cast<std::ptrdiff_t>(
                                               fraction * static_cast<double>(values.size() - 1));
    std::ranges::nth_element(values, position);
    return *position;
}

std::vector<std::string> central_prompts(const PromptSurvey::Cell& cell,
                                         const NamedPrompts& named) {
    std::vector<std::string> prompts;
    for (const std::int64_t row : cell.central) {
        const auto text = named.text.find(row);
        prompts.push_back(text == named.text.end() ? fmt::format("row {}", row) : text->second);
    }
    return prompts;
}

nlohmann::json summary(const PromptPartition& partition, const PromptSurvey& survey,
                       const NamedPrompts& named) {
    const auto shares = border_shares(survey);
    nlohmann::json cells = nlohmann::json::array();
    for (std::size_t k = 0; k < survey.cells.size(); ++k) {
        const auto& cell = survey.cells[k];
        cells.push_back({{"student", k},
                         {"prompts", cell.size},
                         {"mean_cosine", cell.cosine},
                         {"at_border", shares[k]},
                         {"nearest", central_prompts(cell, named)}});
    }
    const auto at_border =
        std::ranges::count_if(survey.margins, [](float margin) { return margin < border; });
    const auto rows = static_cast<double>(survey.owners.size());
    return {{"prompts", survey.owners.size()},
            {"students", partition.students()},
            {"method", partition.method},
            {"hash", partition.hash()},
            {"null_owner", partition.null_owner},
            {"imbalance", imbalance(survey)},
            {"margin",
             {{"p10", quantile(survey.margins, 0.1)}, {"median", quantile(survey.margins, 0.5)}}},
            {"at_border", partition.students() == 1 ? 0.0 : static_cast<double>(at_border) / rows},
            {"border", border},
            {"cells", cells}};
}

/// Prompts on the plane of their two largest principal components, coloured by student.
report::ScatterChart map_of(const Embeddings& embeddings, const PromptSurvey& survey,
                            std::uint64_t seed) {
    auto rows = core::RandomStream(seed, "partition/map").permutation(embeddings.rows());
    rows.resize(static_cast<std::size_t>(std::min(max_mapped, embeddings.rows())));
    const auto count = static_cast<std::int64_t>(rows.size());
    Tensor x = at::empty({count, static_cast<std::int64_t>(embeddings.length())}, at::kFloat);
    report::ScatterChart chart{.title = "prompts by student"};
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t row = rows[static_cast<std::size_t>(i)];
        embeddings.unit_row(row,
                            {x.mutable_data_ptr<float>() + i * x.size(1), embeddings.length()});
        chart.groups.push_back(survey.owners[static_cast<std::size_t>(row)]);
    }
    const Tensor centred = x - x.mean(0);
    const Tensor axes = std::get<2>(at::linalg_svd(centred, false)).slice(0, 0, 2);
    const Tensor flat = at::mm(centred, axes.t()).to(at::kDouble);
    for (std::int64_t i = 0; i < count; ++i) {
        const double* point = flat.const_data_ptr<double>() + i * flat.size(1);
        chart.points.push_back({point[0], flat.size(1) > 1 ? point[1] : 0});
    }
    for (std::size_t k = 0; k < survey.cells.size(); ++k)
        chart.names.push_back(fmt::format("student {}", k));
    return chart;
}

void add_cells(report::Report& report, const nlohmann::json& survey_json) {
    report::Table table{.columns = {"student", "prompts", "share", "mean cosine", "at a border",
                                    "nearest to the centre"}};
    for (const auto& cell : survey_json.at("cells")) {
        table.rows.push_back(
            {std::to_string(cell.at("student").get<int>()),
             std::to_string(cell.at("prompts").get<std::int64_t>()),
             fmt::format("{:.1f} %", 100 * cell.at("prompts").get<double>() /
                                         survey_json.at("prompts").get<double>()),
             fmt::format("{:.3f}", cell.at("mean_cosine").get<double>()),
             fmt::format("{:.1f} %", 100 * cell.at("at_border").get<double>()),
             fmt::format("{}",
                         fmt::join(cell.at("nearest").get<std::vector<std::string>>(), " | "))});
    }
    table.caption = fmt::format(
        "At a border: a prompt whose two best scores (cosine with a centroid, and offset) differ "
        "by less than {:.2f}.",
        border);
    report.add_table(table);
}

void add_borders(report::Report& report, const PromptSurvey& survey) {
    if (survey.cells.size() < 2) return;
    report::Table table{.columns = {"students", "prompts between them"}};
    std::vector<std::tuple<std::int64_t, std::size_t, std::size_t>> pairs;
    for (std::size_t a = 0; a < survey.cells.size(); ++a) {
        for (std::size_t b = a + 1; b < survey.cells.size(); ++b)
            pairs.emplace_back(survey.borders[a][b] + survey.borders[b][a], a, b);
    }
    std::ranges::sort(pairs, std::greater<>());
    pairs.resize(std::min<std::size_t>(pairs.size(), 10));
    for (const auto& [count, a, b] : pairs)
        table.rows.push_back({fmt::format("{} and {}", a, b), std::to_string(count)});
    table.caption =
        "Whose cells meet: prompts that have these two students as their first and second.";
    report.add_table(table);
}

void write_report(const fs::path& path, const PromptArguments& arguments,
                  const Embeddings& embeddings, const PromptSurvey& survey,
                  const nlohmann::json& survey_json) {
    report::Report report("A partition of prompts",
                          fmt::format("{} prompts split among {} students by {}",
                                      survey_json.at("prompts").get<std::int64_t>(),
                                      survey_json.at("students").get<std::int64_t>(),
                                      survey_json.at("method").get<std::string>()));
    report.add_facts(
        {{"largest cell over an equal share",
          fmt::format("{:.2f}", survey_json.at("imbalance").get<double>())},
         {"median margin",
          fmt::format("{:.3f}", survey_json.at("margin").at("median").get<double>())},
         {"prompts at a border",
          fmt::format("{:.1f} %", 100 * survey_json.at("at_border").get<double>())},
         {"owner of the empty prompt",
          fmt::format("student {}", survey_json.at("null_owner").get<std::int64_t>())}});
    report.add_heading("Map");
    report.add_svg(report::scatter_chart(map_of(embeddings, survey, arguments.seed)),
                   fmt::format("Up to {} prompts on their two largest principal components. Cells "
                               "overlap here that are apart in all {} dimensions.",
                               max_mapped, embeddings.length()));
    report.add_heading("Cells");
    add_cells(report, survey_json);
    report.add_heading("Borders");
    add_borders(report, survey);
    report.write(path);
}

void write_owners(const fs::path& path, const PromptSurvey& survey) {
    const auto rows = static_cast<std::int64_t>(survey.owners.size());
    core::write_safetensors(
        path, {{"owner", core::DType::I32, {rows}, std::as_bytes(std::span(survey.owners))},
               {"margin", core::DType::F32, {rows}, std::as_bytes(std::span(survey.margins))}});
}

void log_cells(const nlohmann::json& survey_json) {
    for (const auto& cell : survey_json.at("cells")) {
        core::log::info("student {}: {} prompts, {:.1f} % at a border; {}",
                        cell.at("student").get<int>(), cell.at("prompts").get<std::int64_t>(),
                        100 * cell.at("at_border").get<double>(),
                        fmt::join(cell.at("nearest").get<std::vector<std::string>>(), " | "));
    }
}

}  // namespace

void partition_prompts(const PromptArguments& arguments) {
    if (arguments.out.empty()) throw core::UsageError("--out is needed: the directory to make");
    if (fs::exists(arguments.out))
        throw core::UsageError(arguments.out + " exists; --out names a new directory");
    if (arguments.null_owner >= arguments.students) {
        throw core::UsageError(fmt::format("--null-owner {} is out of range; students are 0 to {}",
                                           arguments.null_owner, arguments.students - 1));
    }
    const Embeddings embeddings(arguments.embeddings);
    if (!arguments.prompts.empty()) check_count(arguments.prompts, embeddings.rows());
    PromptPartition partition = conditions::partition_prompts(
        embeddings, {.students = arguments.students,
                     .seed = arguments.seed,
                     .method = arguments.balanced ? "balanced" : "kmeans"});
    const PromptSurvey survey = conditions::survey(partition, embeddings);
    const NamedPrompts named = named_prompts(arguments.prompts, survey);
    partition.null_owner = null_owner(arguments, named, survey);
    partition.encoder = arguments.encoder;
    const nlohmann::json survey_json = summary(partition, survey, named);
    core::create_directory_atomically(arguments.out, [&](const fs::path& folder) {
        conditions::write_prompt_partition(folder, partition);
        write_owners(folder / "owners.safetensors", survey);
        core::write_json(folder / "survey.json", survey_json);
        write_report(folder / "report.html", arguments, embeddings, survey, survey_json);
    });
    if (arguments.json) std::cout << core::json_text(survey_json, 2) << '\n';
    else log_cells(survey_json);
    core::log::info("partition: {}; look at {}", arguments.out,
                    (fs::path(arguments.out) / "report.html").string());
}

}  // namespace atelier::pipeline
