#pragma once

#include "atelier/inference/calibration.h"

namespace atelier::inference {

struct QuantisationSettings {
    std::int64_t samples = 64;  // for calibration; a few of them measure the layers' errors
    std::uint64_t seed = 0;
    double tolerance = 0.015;  // largest error of int8, relative to the network's output
};

/// The effect of int8 in one layer alone.
struct LayerError {
    CalibratedLayer layer;
    double error;  // RMS of the output's change, relative to the RMS of the output
    bool in_int8 = false;
};

/// Decides which of the layers, given and returned in execution order, are computed in int8: of all
/// but the first and the last those with the least squared error per share of work, as long as the
/// sum of squared errors does not exceed the square of the tolerance.
std::vector<LayerError> choose_layers(std::vector<LayerError> layers, double tolerance);

/// Quantises a model's convolutions in place and records it in the config ("quantisation":
/// settings, range and error of every layer). `conditions` are those by which it is calibrated:
/// classes, or encoded prompts, that a one-step student owns; a model that is not a student is
/// calibrated along Heun trajectories. Shows progress. Throws core::Error when the model is
/// quantised already or has no convolutions.
std::vector<LayerError> quantise(models::Model& model, const Conditioning& conditions,
                                 const QuantisationSettings& settings);

}  // namespace atelier::inference
