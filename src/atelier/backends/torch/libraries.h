#pragma once

#include <filesystem>

namespace atelier::backends {

/// The folder that LibTorch's libraries were loaded from; empty where the loader does not say.
std::filesystem::path torch_library_folder();

}  // namespace atelier::backends
