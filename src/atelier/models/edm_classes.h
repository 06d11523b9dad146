#pragma once

#include "atelier/core/pickle.h"
#include "atelier/models/model_directory.h"

/// Conversion between EDM's classes and this project's config.json.
namespace atelier::models {

/// A pickled object: its class, and its attributes, including its constructor arguments.
struct EdmObject {
    std::string class_name;
    core::PickleValue state;
};

/// The config.json of a denoiser (EDMPrecond, VPPrecond, VEPrecond) and the network in it
/// (SongUNet, DhariwalUNet). Throws core::Error, beginning with `where`, for other classes and
/// for unsupported arguments.
nlohmann::json edm_config(const EdmObject& denoiser, const EdmObject& network,
                          const std::string& where);

/// The EDM denoiser class equivalent to `model`, and its constructor arguments. Throws core::Error
/// if there is none.
std::pair<std::string, nlohmann::json> edm_arguments(const ModelCard& model);

/// The fixed filters that EDM's modules keep as buffers, by name, float32.
backends::Parameters edm_buffers(const core::JsonObject& config);

}  // namespace atelier::models
