#include "atelier/cli/caption_report.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/random_streams.h"
#include "atelier/data/caption_grammar.h"
#include "atelier/data/captioned_images.h"
#include "atelier/inference/prompted_generator.h"
#include "atelier/models/latent_model.h"

namespace atelier::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t pictures_a_row = 10;
constexpr std::size_t most_captions = 8, most_embedded = 20000;

/// Whether the captions are of the grammar that this program composes pictures by.
bool is_composed(const Shelf& shelf) { return shelf.data_path.empty() || data::is_composed(shelf.data_path); }

std::shared_ptr<const data::Dataset> captions_at(const std::string& path, const char* split) {
    try {
        return data::open_dataset({.path = path, .split = split, .limit = 0});
    } catch (const core::Error& error) {
        core::log::warning("report: {}", error.what());
        return nullptr;
    }
}

struct ShownCaptions {
    std::vector<std::string> captions;
    std::string words;
};

/// Of composed pictures a held-out caption of each garment; else some of the held-out captions, as they come by chance.
ShownCaptions shown_captions(const Shelf& shelf) {
    ShownCaptions shown;
    if (is_composed(shelf)) {
        const auto held_out = data::scenes(true);  // two of each garment
        for (std::size_t i = 0; i < held_out.size() && shown.captions.size() < most_captions; i += 2) shown.captions.push_back(data::wordings(held_out[i])[1]);
        shown.words = "its combination was never seen in training";
        return shown;
    }
    const auto data = captions_at(shelf.test_path, "test");
    if (!data || data->captions().empty()) return shown;
    const auto all = static_cast<std::int64_t>(data->captions().size());
    for (const std::int64_t i : core::RandomStream(0, "report/captions", 0).permutation(all)) {
        const std::string& caption = data->captions()[static_cast<std::size_t>(i)];
        if (shown.captions.size() < most_captions && std::ranges::find(shown.captions, caption) == shown.captions.end()) shown.captions.push_back(caption);
    }
    const auto training = shelf.test_path == shelf.data_path ? captions_at(shelf.data_path, "train") : nullptr;
    shown.words = training && training->hash() == data->hash() ? "captions of the training data" : "captions of the held-out data";
    return shown;
}

/// A row of pictures a caption.
core::Image picture(inference::PromptedGenerator& generator, const std::vector<std::string>& captions) {
    inference::Prompted wanted;
    for (const std::string& caption : captions) {
        for (std::int64_t i = 0; i < pictures_a_row; ++i) {
            wanted.numbers.push_back(i);
            wanted.prompts.push_back(caption);
        }
    }
    const Tensor user = generator.pictures(generator.draw(wanted));
    return core::grid(models::images_of(user), static_cast<int>(pictures_a_row), 2, 2);
}

bool draws_latents(const Shelf& shelf) {
    return models::has_autoencoder(shelf.folder / "teacher") || (!shelf.ensembles.empty() && models::has_autoencoder(shelf.ensembles.front().second));
}

}  // namespace

bool reads_prompts(const Shelf& shelf) {
    return inference::reads_prompts(shelf.folder / "teacher") || (!shelf.ensembles.empty() && inference::reads_prompts(shelf.ensembles.front().second));
}

void add_captioned_samples(evaluation::Report& report, const Shelf& shelf) {
    if (draws_latents(shelf)) {
        report.add_heading("Samples");
        report.add_text("Decoded pictures of every student's probes lie in students/*/*/training/samples of the run.");
        return;
    }
    const ShownCaptions shown = shown_captions(shelf);
    if (shown.captions.empty()) return;
    std::vector<evaluation::Figure> figures;
    const auto add = [&](const fs::path& path, const std::string& name) {
        inference::PromptedGenerator generator(path, std::nullopt, std::nullopt, shelf.engine);
        figures.push_back({"", picture(generator, shown.captions), fmt::format("{}, {} evaluation(s) a picture", name, generator.sampling().evaluations())});
    };
    if (shelf.has_teacher()) add(shelf.folder / "teacher", "The teacher");
    for (const auto& [name, path] : shelf.ensembles) add(path, name);
    report.add_heading("Samples");
    report.add_figures(figures);
    report.add_text(fmt::format("One caption per row, from the same noise; {}: {}.", shown.words, fmt::join(shown.captions, "; ")));
}

void add_prompt_cells(evaluation::Report& report, const Shelf& shelf) {
    if (shelf.ensembles.empty() || draws_latents(shelf)) return;
    const fs::path& path = shelf.ensembles.back().second;
    const inference::PromptedGenerator generator(path, std::nullopt, std::nullopt, shelf.engine);
    std::vector<std::string> all;
    std::string whose = "captions of the training grammar";
    if (is_composed(shelf)) {
        for (const data::Scene& scene : data::scenes(false)) {
            const auto words = data::wordings(scene);
            all.insert(all.end(), words.begin(), words.end());
        }
    } else if (const auto data = captions_at(shelf.data_path, "train")) {
        all = data->captions();
        all.resize(std::min(all.size(), most_embedded));
        whose = "captions of the training data";
    }
    if (all.empty()) return;
    const Tensor embeddings = generator.encoder().embed(all);
    struct Cell {
        std::int64_t count = 0;
        float highest = -2;
        std::string central;
    };
    std::vector<Cell> cells(static_cast<std::size_t>(generator.students()));
    for (std::size_t i = 0; i < all.size(); ++i) {
        const auto place = generator.place(embeddings[static_cast<std::int64_t>(i)]);
        Cell& cell = cells[static_cast<std::size_t>(place.student)];
        ++cell.count;
        if (place.score > cell.highest) cell.highest = place.score, cell.central = all[i];
    }
    evaluation::Table table{.columns = {"student", whose, "nearest to its centre"}};
    for (std::size_t k = 0; k < cells.size(); ++k) table.rows.push_back({std::to_string(k), std::to_string(cells[k].count), cells[k].central});
    report.add_heading("Partition");
    report.add_table(table);
}

}  // namespace atelier::cli
