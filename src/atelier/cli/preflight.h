#pragma once

#include <string>
#include <vector>

#include "atelier/cli/workshop.h"
#include "atelier/conditions/partition.h"

namespace atelier::cli {

/// Everything about a run that can be known before it trains is looked at before it trains, by `run`, by every stage's command and by a dry run alike. `raw` are
/// the training data as they lie on disk; null in a dry run whose data are elsewhere: then what else is missing is no fault either. Throws core::UsageError or
/// core::Error with what to do. Returns what is worth knowing, a line each. A default classifier that does not fit the data is taken out of `loaded`.
std::vector<std::string> check_before_training(LoadedConfig& loaded, const data::Dataset* raw);

/// Throws core::UsageError where a student's cell has no sample to learn from, or too few pairs. What needs the teacher is not known earlier than the partition.
void check_cells(const RunConfig& config, const conditions::Partition& partition, const data::Dataset& raw);

/// Throws core::UsageError, naming all of them and how to redo them, where stages of the run were made with other settings, from other data or from another teacher
/// than they would be now.
void check_stages(Workshop& workshop);

/// Says in the log which stages were made from another teacher than the run's is now.
void warn_of_stale_stages(Workshop& workshop);

/// Whether models are measured against the images that they were trained on.
bool is_training_data(const RunConfig& config);

/// Throws core::Error unless a folder can be made at `path`, or written to where it is there. Nothing is left behind.
void check_output_folder(const std::filesystem::path& path);

}  // namespace atelier::cli
