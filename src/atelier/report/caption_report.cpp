#include "atelier/report/caption_report.h"

#include <algorithm>
#include <ranges>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/random_streams.h"
#include "atelier/inference/pipeline.h"
#include "atelier/models/latent_model.h"

namespace atelier::report {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t images_per_row = 10;
constexpr std::size_t max_captions = 8, max_embedded = 20000;

/// Null where the path is unknown or cannot be opened, which is logged.
std::shared_ptr<const data::Dataset> captions_at(const std::string& path, const char* split) {
    if (path.empty()) return nullptr;
    try {
        return data::open_dataset({.path = path, .split = split, .limit = 0});
    } catch (const core::Error& error) {
        core::log::warning("report: {}", error.what());
        return nullptr;
    }
}

struct ShownCaptions {
    std::vector<std::string> captions;
    std::string description;
};

/// Randomly chosen held-out captions.
ShownCaptions shown_captions(const RunModels& run) {
    ShownCaptions shown;
    const auto data = captions_at(run.test_path, "test");
    if (!data || data->captions().empty()) return shown;
    const auto all = static_cast<std::int64_t>(data->captions().size());
    for (const std::int64_t i : core::RandomStream(0, "report/captions", 0).permutation(all)) {
        const std::string& caption = data->captions()[static_cast<std::size_t>(i)];
        if (shown.captions.size() < max_captions &&
            std::ranges::find(shown.captions, caption) == shown.captions.end())
            shown.captions.push_back(caption);
    }
    const auto training =
        run.test_path == run.data_path ? captions_at(run.data_path, "train") : nullptr;
    shown.description = training && training->hash() == data->hash()
                            ? "captions of the training data"
                            : "captions of the held-out data";
    return shown;
}

bool draws_latents(const RunModels& run) {
    return models::has_autoencoder(run.folder / "teacher") ||
           (!run.ensembles.empty() && models::has_autoencoder(run.ensembles.front().second));
}

}  // namespace

core::Image prompt_grid(inference::Pipeline& pipeline, const std::vector<std::string>& prompts) {
    std::vector<inference::SampleRequest> requests;
    for (const std::string& prompt : prompts | std::views::take(max_captions)) {
        for (std::int64_t i = 0; i < images_per_row; ++i) requests.push_back({0, i, prompt});
    }
    const Tensor user = pipeline.decode(pipeline.draw(requests));
    return core::grid(data::images_of(user), static_cast<int>(images_per_row), 2, 2);
}

bool reads_prompts(const RunModels& run) {
    return inference::reads_prompts(run.folder / "teacher") ||
           (!run.ensembles.empty() && inference::reads_prompts(run.ensembles.front().second));
}

void add_captioned_samples(report::Report& report, const RunModels& run) {
    if (draws_latents(run)) {
        report.add_heading("Samples");
        report.add_text(
            "Decoded images of every student's probes are in students/*/*/training/samples of "
            "the run.");
        return;
    }
    const ShownCaptions shown = shown_captions(run);
    if (shown.captions.empty()) return;
    std::vector<report::Figure> figures;
    const auto add = [&](const fs::path& path, const std::string& name) {
        const auto pipeline = inference::Pipeline::load(path, {.engine = run.engine});
        figures.push_back({"", prompt_grid(*pipeline, shown.captions),
                           fmt::format("{}, {} evaluation(s) per image", name,
                                       pipeline->sampling().evaluations())});
    };
    if (run.has_teacher()) add(run.folder / "teacher", "The teacher");
    for (const auto& [name, path] : run.ensembles) add(path, name);
    report.add_heading("Samples");
    report.add_figures(figures);
    report.add_text(fmt::format("One caption per row, from the same noise; {}: {}.",
                                shown.description, fmt::join(shown.captions, "; ")));
}

void add_prompt_cells(report::Report& report, const RunModels& run) {
    if (run.ensembles.empty() || draws_latents(run)) return;
    const fs::path& path = run.ensembles.back().second;
    const auto pipeline = inference::Pipeline::load(path, {.engine = run.engine});
    const auto data = captions_at(run.data_path, "train");
    if (!data || data->captions().empty()) return;
    std::vector<std::string> all = data->captions();
    all.resize(std::min(all.size(), max_embedded));
    struct Cell {
        std::int64_t count = 0;
        float highest = -2;
        std::string nearest;
    };
    std::vector<Cell> cells(static_cast<std::size_t>(pipeline->students()));
    const auto decisions = pipeline->route(inference::conditions_of(all));
    for (std::size_t i = 0; i < all.size(); ++i) {
        const auto& decision = decisions[i];
        Cell& cell = cells[static_cast<std::size_t>(decision.student)];
        ++cell.count;
        if (decision.score > cell.highest) cell.highest = decision.score, cell.nearest = all[i];
    }
    report::Table table{
        .columns = {"student", "captions of the training data", "nearest to its centre"}};
    for (std::size_t k = 0; k < cells.size(); ++k)
        table.rows.push_back({std::to_string(k), std::to_string(cells[k].count), cells[k].nearest});
    report.add_heading("Partition");
    report.add_table(table);
}

}  // namespace atelier::report
