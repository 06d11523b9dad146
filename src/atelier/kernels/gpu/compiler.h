#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "atelier/kernels/gpu/programs.h"

namespace atelier::kernels::gpu {

/// NVRTC, NVIDIA's compiler of kernels as a library, which is opened at run time: nothing of CUDA
/// is needed to build this, and no GPU or driver to compile kernels with it.
class Compiler {
public:
    /// Opens the first of `libraries` that can be loaded. Throws core::Error, which says why each
    /// cannot.
    explicit Compiler(const std::vector<std::filesystem::path>& libraries);

    /// For example "13.0".
    std::string version() const;

    /// What it compiles for, ascending: compute capability 9.0 is 90.
    std::vector<int> architectures() const;

    /// Machine code for `architecture` "sm_90a", or an intermediate form (PTX) for "compute_90".
    /// Throws core::Error with NVRTC's messages when the source is wrong.
    std::vector<char> compile(const Program& program, const std::string& architecture) const;

private:
    struct Functions {
        int (*version)(int* major, int* minor);
        int (*count_architectures)(int* count);
        int (*architectures)(int* all);
        int (*create)(void** program, const char* source, const char* name, int headers,
                      const char* const* texts, const char* const* names);
        int (*compile)(void* program, int count, const char* const* options);
        int (*log_size)(void* program, std::size_t* size);
        int (*log)(void* program, char* text);
        int (*machine_code_size)(void* program, std::size_t* size);
        int (*machine_code)(void* program, char* code);
        int (*intermediate_size)(void* program, std::size_t* size);
        int (*intermediate)(void* program, char* code);
        int (*destroy)(void** program);
        const char* (*error)(int result);
    };

    void load(void* library);
    void check(int result, const char* task) const;

    Functions call_{};
};

/// Where NVRTC may be: where the variable ATELIER_NVRTC says, else among the wheels that
/// LibTorch's, whose libraries are in `torch_libraries`, brings along, else where the system has
/// it.
std::vector<std::filesystem::path> nvrtc_candidates(const std::filesystem::path& torch_libraries);

/// The architecture to compile for on a GPU of compute capability `capability` (90): its own where
/// the compiler knows it, else the intermediate form of the newest before it, which the driver
/// finishes. Throws core::Error when there is none.
std::string architecture_for(int capability, const std::vector<int>& known);

}  // namespace atelier::kernels::gpu
