#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "atelier/evaluation/report.h"
#include "atelier/inference/generator.h"
#include "atelier/models/ensemble.h"

namespace atelier::cli {

/// What a report is about: a folder with a teacher and the ensembles distilled from it. A run directory is one, with other runs of the same
/// teacher inside it if there are any; models/fashion-mnist is another.
struct Shelf {
    std::filesystem::path folder;
    std::vector<std::pair<std::string, std::filesystem::path>> ensembles;  // names for people: "K=4", or "K=4 (small)"
    std::string data_path;                                                 // empty where it is not known
    inference::Engine engine;                                              // what draws; a run's report has the run's device
    std::string test_path;                                                 // of held-out data; empty where it is not known

    bool has_teacher() const;
};

/// Looks through `folder`. Throws core::Error when there is neither a teacher nor an ensemble.
Shelf open_shelf(const std::filesystem::path& folder);

/// Sections of a report; what is not there is left out.

/// Pictures of teacher and students from the same noise, or points over the true density.
void add_samples(evaluation::Report& report, const Shelf& shelf);

/// The figures of every evaluation.json, and a row a class of the first.
void add_figures(evaluation::Report& report, const Shelf& shelf);

/// Which student owns which class.
void add_partition(evaluation::Report& report, const Shelf& shelf);

/// Curves, and the last word on the health, of every stage.
void add_training(evaluation::Report& report, const std::filesystem::path& run);

/// Are generated images copies? The nearest training neighbours of a few.
void add_neighbours(evaluation::Report& report, const Shelf& shelf);

/// Pictures of several forms of one model, from the same noise and classes.
void add_side_by_side(evaluation::Report& report, const std::vector<std::pair<std::string, inference::Generator*>>& forms);

/// Everything that a shelf has.
void add_everything(evaluation::Report& report, const Shelf& shelf);

}  // namespace atelier::cli
