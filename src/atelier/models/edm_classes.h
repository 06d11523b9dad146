#pragma once

#include "atelier/core/pickle.h"
#include "atelier/models/model_directory.h"

/// EDM's classes and this project's config.json, one from the other.
namespace atelier::models {

/// An object of a pickle: its class, and its attributes, among them the arguments that it was made with.
struct EdmObject {
    std::string class_name;
    core::PickleValue state;
};

/// The config.json of a denoiser (EDMPrecond, VPPrecond, VEPrecond) and the network in it (SongUNet, DhariwalUNet). Throws core::Error, beginning
/// with `where`, on other classes and on arguments that make no network of ours.
nlohmann::json edm_config(const EdmObject& denoiser, const EdmObject& network, const std::string& where);

/// The class of the denoiser that EDM would make of `model`, and its arguments. Throws core::Error when it has none.
std::pair<std::string, nlohmann::json> edm_arguments(const Model& model);

/// The fixed filters that EDM's modules keep as buffers, by name, float32.
ops::Parameters edm_buffers(const core::JsonObject& config);

}  // namespace atelier::models
