#include "atelier/kernels/instructions.h"

#include <initializer_list>

#include "atelier/kernels/attention_kernels.h"
#include "atelier/kernels/norm_kernels.h"
#include "atelier/kernels/row_kernels.h"
#include "atelier/kernels/winograd_kernels.h"

namespace atelier::kernels {

namespace {

Instructions found() {
#ifdef ATELIER_X86_KERNELS
    // As CMakeLists.txt compiles them; f16c, which GCC 12 cannot ask for, came before avx2.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512cd")) {
        return Instructions::avx512;
    }
    if (avx2) return Instructions::avx2;
#endif
    return Instructions::plain;
}

// In the order of Instructions.
#ifdef ATELIER_X86_KERNELS
#define ATELIER_COMPILATIONS {&plain, &avx2, &avx512}
#else
#define ATELIER_COMPILATIONS {&plain}
#endif

template <class Table>
const Table& best_of(std::initializer_list<const Table*> compilations) {
    return *compilations.begin()[static_cast<std::size_t>(best_instructions())];
}

}  // namespace

Instructions best_instructions() {
    static const Instructions best = found();
    return best;
}

namespace attention_kernels {

const Table& best() { return best_of<Table>(ATELIER_COMPILATIONS); }

}  // namespace attention_kernels

namespace norm_kernels {

const Table& best() { return best_of<Table>(ATELIER_COMPILATIONS); }

}  // namespace norm_kernels

namespace row_kernels {

const Table& best() { return best_of<Table>(ATELIER_COMPILATIONS); }

}  // namespace row_kernels

namespace winograd_kernels {

const Table& best() { return best_of<Table>(ATELIER_COMPILATIONS); }

}  // namespace winograd_kernels

}  // namespace atelier::kernels
