#include "atelier/parallel/nccl_module.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>

namespace atelier::parallel {

namespace {

namespace fs = std::filesystem;

/// The folder of the program or library that holds this code.
fs::path own_folder() {
    Dl_info where{};
    if (::dladdr(reinterpret_cast<void*>(&own_folder), &where) == 0 || !where.dli_fname) return {};
    std::error_code unknown;
    const fs::path found = fs::canonical(where.dli_fname, unknown);
    return unknown ? fs::read_symlink("/proc/self/exe", unknown).parent_path()
                   : found.parent_path();
}

}  // namespace

NcclModule open_nccl_module() {
    const fs::path here = own_folder();
    for (const fs::path& folder : {here, here / "../lib"}) {
        const fs::path file = folder / "libatelier_nccl.so";
        std::error_code ignored;
        if (!fs::exists(file, ignored)) continue;
        void* const module = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
        void* const entry = module ? ::dlsym(module, nccl_module_entry) : nullptr;
        if (entry) return {.make = reinterpret_cast<MakeNcclGroup>(entry)};
        const char* why = ::dlerror();
        return {.problem = why ? why : file.string() + " cannot be opened"};
    }
    return {.problem = fmt::format("there is no libatelier_nccl.so in {} (make build CUDA=1 builds "
                                   "it)",
                                   here.string())};
}

}  // namespace atelier::parallel
