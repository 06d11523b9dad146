#pragma once

#include <dlfcn.h>

#include "atelier/core/error.h"

namespace atelier::kernels::gpu {

/// Finds the function `name` of an opened library. Throws core::Error when `what` lacks it.
template <class Function>
void load_function(void* library, const char* what, const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(::dlsym(library, name));
    if (!function) core::fail("{} has no {}; it may be too old", what, name);
}

}  // namespace atelier::kernels::gpu
