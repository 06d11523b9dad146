#include "atelier/parallel/nccl_module.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>

#include "atelier/core/installed_data.h"

namespace atelier::parallel {

namespace fs = std::filesystem;

NcclModule open_nccl_module() {
    const fs::path here = core::own_file().parent_path();
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
