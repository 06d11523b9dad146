#pragma once

#include "atelier/inference/calibration.h"

namespace atelier::inference {

struct QuantisationSettings {
    std::int64_t samples = 64;  // that ranges are taken from; a few of them measure the layers
    std::uint64_t seed = 0;
    double tolerance = 0.015;   // error that int8 may make, relative to the network's output
};

/// What int8 in one layer alone does.
struct LayerError {
    CalibratedLayer layer;
    double error;         // root mean square over that of the network's output
    bool in_int8 = false;
};

/// The layers in the order of use, and which of them may be in int8: of all but the first and the last those with the least error for their
/// work, as long as their errors, squared and summed, stay below the tolerance's square.
std::vector<LayerError> choose_layers(std::vector<LayerError> layers, double tolerance);

/// Quantises a model's convolutions in place and says so in its config ("quantisation": settings, every layer's range and error). `classes` are those
/// that a one-step student answers for; a model that is no student is calibrated along its own sampler's paths. Shows progress. Throws core::Error
/// when the model is quantised already or has no convolutions.
std::vector<LayerError> quantise(models::Model& model, const std::vector<std::int64_t>& classes, const QuantisationSettings& settings);

}  // namespace atelier::inference
