#include "atelier/backends/torch/libraries.h"

#include <ATen/Context.h>
#include <dlfcn.h>

namespace atelier::backends {

std::filesystem::path torch_library_folder() {
    Dl_info where{};
    if (::dladdr(reinterpret_cast<void*>(&at::globalContext), &where) == 0 || !where.dli_fname)
        return {};
    return std::filesystem::path(where.dli_fname).parent_path();
}

}  // namespace atelier::backends
