#pragma once

#include <filesystem>
#include <string>

namespace atelier::backends {

/// The folder that LibTorch's libraries were loaded from; empty where the loader does not say.
std::filesystem::path torch_library_folder();

/// What came of opening a module: its handle for dlsym(), or why there is none.
struct OpenedModule {
    void* handle = nullptr;
    std::string problem{};
};

/// Opens one of our modules that need LibTorch's CUDA library, by its file's name: beside the
/// program or library that this code is in, or in ../lib from there. That CUDA library must be
/// loaded (inference::device_of does that). The module stays open.
OpenedModule open_cuda_module(const std::string& file);

}  // namespace atelier::backends
