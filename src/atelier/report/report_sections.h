#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "atelier/metrics/measuring.h"
#include "atelier/models/ensemble.h"
#include "atelier/report/report.h"

namespace atelier::report {

/// The models of a report: a teacher and the ensembles distilled from it, in one folder. A run
/// directory is such a folder (possibly with other runs of the same teacher inside), and so is
/// models/fashion-mnist.
struct RunModels {
    std::filesystem::path folder;
    std::vector<std::pair<std::string, std::filesystem::path>>
        ensembles;                    // with display names: "K=4", or "K=4 (small)"
    std::string data_path;            // of training data; empty if unknown
    inference::Engine engine;         // for sampling; a run's report uses the run's device
    std::string test_path;            // of held-out data; empty if unknown
    std::vector<std::string> stages;  // folders of a run's stages, in their order; others follow

    bool has_teacher() const;
};

/// Finds the models in `folder`. Throws core::Error when it has neither a teacher nor an ensemble.
RunModels open_run_models(const std::filesystem::path& folder);

/// The results of all evaluation.json files of `run` and of the runs inside, as in one such file;
/// of a model evaluated twice, those nearest to the run's folder.
nlohmann::json evaluations_of(const RunModels& run);

/// Sections of a report; missing content is omitted.

/// Images of teacher and ensembles from the same noise, or points over the true density.
void add_samples(report::Report& report, const RunModels& run);

/// The metrics of every evaluation.json, and one row per class for one of the models.
void add_figures(report::Report& report, const RunModels& run);

/// Which student owns which class.
void add_partition(report::Report& report, const RunModels& run);

/// Training curves and the final health findings of every stage.
void add_training(report::Report& report, const RunModels& run);

/// The nearest training images of some generated images, to detect copying.
void add_neighbours(report::Report& report, const RunModels& run);

/// Images of several variants of one model, from the same noise and classes, or for the first of
/// `prompts`.
void add_side_by_side(report::Report& report, const metrics::EvaluatedModels& variants,
                      const std::vector<std::string>& prompts = {});

/// All sections that apply to `run`.
void add_everything(report::Report& report, const RunModels& run);

}  // namespace atelier::report
