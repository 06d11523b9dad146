#include "atelier/backends/torch/libraries.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include "atelier/core/installed_data.h"

namespace atelier::backends {

namespace fs = std::filesystem;

fs::path torch_library_folder() {
    Dl_info where{};
    if (::dladdr(reinterpret_cast<void*>(&at::globalContext), &where) == 0 || !where.dli_fname)
        return {};
    return fs::path(where.dli_fname).parent_path();
}

OpenedModule open_cuda_module(const std::string& file) {
    const fs::path here = core::own_file().parent_path();
    for (const fs::path& folder : {here, here / "../lib"}) {
        const fs::path path = folder / file;
        std::error_code ignored;
        if (!fs::exists(path, ignored)) continue;
        if (void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL))
            return {.handle = handle};
        const char* why = ::dlerror();
        return {.problem = why ? why : path.string() + " cannot be opened"};
    }
    return {.problem = fmt::format("there is no {} in {} (make build CUDA=1 builds it)", file,
                                   here.string())};
}

}  // namespace atelier::backends
