#include "atelier/kernels/gpu/compiler.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "atelier/core/error.h"
#include "atelier/kernels/gpu/loaded_library.h"

namespace atelier::kernels::gpu {

namespace {

namespace fs = std::filesystem;

/// The files of `folder` whose names begin with `start`, in order.
std::vector<fs::path> libraries_in(const fs::path& folder, std::string_view start) {
    std::vector<fs::path> found;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
        if (entry.path().filename().string().starts_with(start)) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
}

/// NVRTC opens its builtins by name. Up to 13.0 (LibTorch's) it has no RPATH to find them beside
/// it, but what is loaded already is found.
void load_builtins_beside(const fs::path& library) {
    for (const fs::path& path : libraries_in(library.parent_path(), "libnvrtc-builtins.so"))
        ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
}

}  // namespace

Compiler::Compiler(const std::vector<fs::path>& libraries) {
    std::string why;
    for (const fs::path& path : libraries) {
        if (void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
            load_builtins_beside(path);
            load(library);
            return;
        }
        const char* reason = ::dlerror();
        why += (why.empty() ? "" : "; ") + (reason ? std::string(reason) : path.string());
    }
    core::fail("NVRTC cannot be loaded ({})", why.empty() ? "no library is named" : why);
}

void Compiler::load(void* library) {
    const auto load = [library](const char* name, auto& function) {
        load_function(library, "NVRTC", name, function);
    };
    load("nvrtcVersion", call_.version);
    load("nvrtcGetNumSupportedArchs", call_.count_architectures);
    load("nvrtcGetSupportedArchs", call_.architectures);
    load("nvrtcCreateProgram", call_.create);
    load("nvrtcCompileProgram", call_.compile);
    load("nvrtcGetProgramLogSize", call_.log_size);
    load("nvrtcGetProgramLog", call_.log);
    load("nvrtcGetCUBINSize", call_.machine_code_size);
    load("nvrtcGetCUBIN", call_.machine_code);
    load("nvrtcGetPTXSize", call_.intermediate_size);
    load("nvrtcGetPTX", call_.intermediate);
    load("nvrtcDestroyProgram", call_.destroy);
    load("nvrtcGetErrorString", call_.error);
}

void Compiler::check(int result, const char* task) const {
    if (result != 0) core::fail("NVRTC cannot {}: {}", task, call_.error(result));
}

std::string Compiler::version() const {
    int major = 0, minor = 0;
    check(call_.version(&major, &minor), "say its version");
    return fmt::format("{}.{}", major, minor);
}

std::vector<int> Compiler::architectures() const {
    int count = 0;
    check(call_.count_architectures(&count), "say what it compiles for");
    std::vector<int> all(static_cast<std::size_t>(count));
    check(call_.architectures(all.data()), "say what it compiles for");
    std::sort(all.begin(), all.end());
    return all;
}

std::vector<char> Compiler::compile(const Program& program, const std::string& architecture) const {
    std::vector<std::string> texts, names;
    for (const SourceFile& file : source_files()) {
        texts.emplace_back(file.text);
        names.emplace_back(file.name);
    }
    const auto pointers = [](const std::vector<std::string>& strings) {
        std::vector<const char*> all;
        for (const std::string& text : strings) all.push_back(text.c_str());
        return all;
    };
    const std::vector<const char*> text_pointers = pointers(texts), name_pointers = pointers(names);
    void* handle = nullptr;
    check(call_.create(&handle, std::string(program.source.text).c_str(),
                       std::string(program.source.name).c_str(), static_cast<int>(texts.size()),
                       text_pointers.data(), name_pointers.data()),
          "take a program");
    const auto destroy = [this](void* created) { call_.destroy(&created); };
    const std::unique_ptr<void, decltype(destroy)> owner(handle, destroy);

    const std::vector<std::string> options{"--gpu-architecture=" + architecture, "--std=c++17",
                                           program.contracts ? "--fmad=true" : "--fmad=false"};
    const std::vector<const char*> option_pointers = pointers(options);
    const int result =
        call_.compile(handle, static_cast<int>(options.size()), option_pointers.data());
    if (result != 0) {
        std::size_t size = 0;
        call_.log_size(handle, &size);
        std::string log(size, '\0');
        if (size > 0) call_.log(handle, log.data());
        core::fail("NVRTC cannot compile {} for {}: {}\n{}", program.source.name, architecture,
                   call_.error(result), log.c_str());
    }
    const bool finished = architecture.starts_with("sm_");
    std::size_t size = 0;
    check((finished ? call_.machine_code_size : call_.intermediate_size)(handle, &size),
          "give the code");
    std::vector<char> code(size);
    check((finished ? call_.machine_code : call_.intermediate)(handle, code.data()),
          "give the code");
    return code;
}

std::vector<fs::path> nvrtc_candidates(const fs::path& torch_libraries) {
    if (const char* named = std::getenv("ATELIER_NVRTC")) return {named};
    std::vector<fs::path> all = libraries_in(torch_libraries, "libnvrtc.so");
    const fs::path nvidia = torch_libraries.parent_path().parent_path() / "nvidia";
    for (const char* part : {"cu13", "cuda_nvrtc"}) {
        const std::vector<fs::path> found = libraries_in(nvidia / part / "lib", "libnvrtc.so");
        all.insert(all.end(), found.begin(), found.end());
    }
    for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"})
        all.emplace_back(name);
    return all;
}

std::string architecture_for(int capability, const std::vector<int>& known) {
    const auto above = std::upper_bound(known.begin(), known.end(), capability);
    if (above == known.begin()) {
        core::fail("NVRTC does not compile for GPUs of compute capability {}.{}", capability / 10,
                   capability % 10);
    }
    const int chosen = *std::prev(above);
    return fmt::format("{}_{}", chosen == capability ? "sm" : "compute", chosen);
}

}  // namespace atelier::kernels::gpu
