#include "atelier/parallel/nccl_module.h"

#include <dlfcn.h>

#include "atelier/backends/torch/libraries.h"

namespace atelier::parallel {

NcclModule open_nccl_module() {
    const backends::OpenedModule module = backends::open_cuda_module("libatelier_nccl.so");
    if (module.handle == nullptr) return {.problem = module.problem};
    void* const entry = ::dlsym(module.handle, nccl_module_entry);
    if (entry == nullptr) return {.problem = ::dlerror()};
    return {.make = reinterpret_cast<MakeNcclGroup>(entry)};
}

}  // namespace atelier::parallel
