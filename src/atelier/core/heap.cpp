#include "atelier/core/heap.h"

#include <cstdlib>
#include <limits>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace atelier::core {

void keep_freed_memory() {
#ifdef __GLIBC__
    constexpr int mmap_threshold =
        32 << 20;  // bytes, the maximum that glibc accepts; larger blocks are mapped individually
    mallopt(M_MMAP_THRESHOLD, mmap_threshold);
    mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

}  // namespace atelier::core
