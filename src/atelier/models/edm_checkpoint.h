#pragma once

#include <filesystem>

#include "atelier/models/model_directory.h"

namespace atelier::models {

/// A model as other people's files hold it: `tensors` by EDM's names, with the fixed filters of resampling layers where the file has them, each of
/// the type it is stored in.
struct Checkpoint {
    nlohmann::json config;
    ops::Parameters tensors;
};

/// Reads a pickle of NVlabs/edm's (the network under "ema", or alone) or a training state (under "net"): preconditioning and architecture from
/// the objects' constructor arguments, parameters and buffers from their states. No code in it is run. Throws core::Error naming the file, and
/// what it asks for where that is more.
Checkpoint read_edm_pickle(const std::filesystem::path& path);

/// Reads a state dictionary of `config`'s network, as DMD2 and FastGen write them: torch.save's files (.pth, .bin, .pt) or safetensors. The network may
/// lie anywhere in it; `prefix` says which one where there are several. Throws core::Error naming the file.
Checkpoint read_state_dictionary(const std::filesystem::path& path, const nlohmann::json& config, const std::string& prefix);

/// Writes a model directory, atomically, after checking that the tensors are the config's network. Throws core::Error when `directory` exists.
void write_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint, const std::string& source);

/// Writes the weights of a model directory as a safetensors state dictionary of EDM's classes, with the buffers that these have; its metadata
/// names class and constructor arguments. Throws core::Error on a network that EDM does not have.
void write_edm_state(const std::filesystem::path& path, const std::filesystem::path& directory);

}  // namespace atelier::models
