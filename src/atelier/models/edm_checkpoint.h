#pragma once

#include <filesystem>

#include "atelier/models/model_directory.h"

namespace atelier::models {

/// A model read from a foreign file: `tensors` by EDM's names, including the fixed filters of
/// resampling layers if the file has them, in their stored types.
struct Checkpoint {
    nlohmann::json config;
    backends::Parameters tensors;
};

/// Reads a pickle of NVlabs/edm's (the network under "ema", or alone) or a training state (under
/// "net"): preconditioning and architecture from the objects' constructor arguments, parameters and
/// buffers from their states. No code in it is executed. Throws core::Error naming the file, and
/// the global if it requests a disallowed one.
Checkpoint read_edm_pickle(const std::filesystem::path& path);

/// Reads a state dictionary of `config`'s network, as DMD2 and FastGen write them: torch.save's
/// files (.pth, .bin, .pt) or safetensors. The network may be nested anywhere in it;
/// `prefix` selects one of several. Throws core::Error naming the file.
Checkpoint read_state_dictionary(const std::filesystem::path& path, const nlohmann::json& config,
                                 const std::string& prefix);

/// Writes a model directory, atomically, after checking that the tensors match the config's
/// network. Throws core::Error if `directory` exists.
void write_checkpoint(const std::filesystem::path& directory, const Checkpoint& checkpoint,
                      const std::string& source);

/// Writes the weights of a model directory as a safetensors state dictionary of EDM's classes,
/// including their buffers; the metadata name the class and its constructor arguments. Throws
/// core::Error for a network that EDM does not have.
void write_edm_state(const std::filesystem::path& path, const std::filesystem::path& directory);

}  // namespace atelier::models
