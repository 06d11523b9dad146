#pragma once

#include <optional>
#include <string>
#include <vector>

#include "atelier/conditions/partition.h"
#include "atelier/pipeline/run_context.h"

namespace atelier::pipeline {

/// Checks everything about a run that can be known before it trains; `run`, the stages' commands
/// and dry runs call it. `raw` is the training data as stored on disk, or null in a dry run whose
/// data do not exist here: then other missing files are no errors either. Removes a default
/// classifier that does not fit the data from `loaded`. Returns warnings, one line each. Throws
/// core::UsageError or core::Error, saying how to fix it.
std::vector<std::string> check_before_training(LoadedConfig& loaded, const data::Dataset* raw);

/// The partition of classes, where it exists already or does not depend on the teacher.
std::optional<conditions::Partition> known_partition(const RunConfig& config,
                                                     const data::Dataset& raw);

/// Throws core::UsageError where a student's cell has no sample to learn from, or no pair.
/// Separate, since partitions that need the teacher are not known earlier.
void check_cells(const RunConfig& config, const conditions::Partition& partition,
                 const data::Dataset& raw);

/// Throws core::UsageError where stages of the run were made with other settings, from other data
/// or from another teacher than they would be now; names all of them and how to redo them.
void check_stages(RunContext& context);

/// Logs which stages were made from another teacher than the run has now.
void warn_of_stale_stages(RunContext& context);

/// Whether models are evaluated against the images that they were trained on.
bool is_training_data(const RunConfig& config);

/// Throws core::Error unless `path` is a writable folder or one can be created there. Leaves
/// nothing behind.
void check_output_folder(const std::filesystem::path& path);

}  // namespace atelier::pipeline
