#include "atelier/core/heap.h"

#include <cstdlib>
#include <limits>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace atelier::core {

void keep_freed_memory() {
#ifdef __GLIBC__
    constexpr int largest_of_heap = 32 << 20;  // bytes, the most that glibc takes; larger ones are mapped one by one
    mallopt(M_MMAP_THRESHOLD, largest_of_heap);
    mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

}  // namespace atelier::core
