#pragma once

#include <vector>

#include "atelier/kernels/instructions.h"

/// The compilations of a kernel namespace's inner loops, in the order of Instructions; for use
/// where their names are visible.
#ifdef ATELIER_X86_KERNELS
#define ATELIER_EVERY_COMPILATION                                 \
    {                                                             \
        {"plain", &plain}, {"avx2", &avx2}, { "avx512", &avx512 } \
    }
#else
#define ATELIER_EVERY_COMPILATION \
    {                             \
        {                         \
            "plain", &plain       \
        }                         \
    }
#endif

namespace atelier::kernels {

template <class Table>
struct Compilation {
    const char* name;
    const Table* table;
};

/// Those of `every` that this processor can run.
template <class Table>
std::vector<Compilation<Table>> compilations_here(std::vector<Compilation<Table>> every) {
    every.resize(static_cast<std::size_t>(best_instructions()) + 1);
    return every;
}

}  // namespace atelier::kernels
