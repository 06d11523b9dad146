#pragma once

#include "atelier/models/ensemble.h"

/// Models whose files are open but not yet read. They can be read later, and repeatedly, in their
/// original state even if the files have been replaced meanwhile.
namespace atelier::models {

/// The model of a directory with its config.json read, `mapped` set to the weights file and
/// `parameters` empty. Throws core::Error naming the file.
Model open_model(const std::filesystem::path& directory);

/// Opens student k. Throws core::Error if it was trained for another partition or another cell.
Model open_student(const Ensemble& ensemble, std::int64_t student);

/// Reads and checks the weights of an opened model, as read_model does.
Model read_weights(Model opened, at::Device device = at::kCPU, Weights weights = Weights::copied);

}  // namespace atelier::models
