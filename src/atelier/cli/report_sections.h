#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "atelier/evaluation/report.h"
#include "atelier/models/ensemble.h"

namespace atelier::cli {

/// Sections of a report, each from what lies in a finished or unfinished run directory; what is not there is left out.

/// Pictures of teacher and students from the same noise, or points over the true density.
void add_samples(evaluation::Report& report, const std::filesystem::path& run, const std::string& data_path);

/// The figures of evaluation.json, and a row a class.
void add_figures(evaluation::Report& report, const std::filesystem::path& run);

/// Which student owns which class.
void add_partition(evaluation::Report& report, const std::filesystem::path& run);

/// Curves, and the last word on the health, of every stage.
void add_training(evaluation::Report& report, const std::filesystem::path& run);

/// Are generated images copies? The nearest training neighbours of a few.
void add_neighbours(evaluation::Report& report, const std::filesystem::path& run, const std::string& data_path);

}  // namespace atelier::cli
