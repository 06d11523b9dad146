#include "atelier/ops/instructions.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include "atelier/ops/norm_kernels.h"
#include "atelier/ops/winograd_kernels.h"

namespace atelier::ops {

namespace {

Instructions found() {
#ifdef ATELIER_X86_KERNELS
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
        return Instructions::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Instructions::avx2;
#endif
    return Instructions::plain;
}

}  // namespace

Instructions best_instructions() {
    static const Instructions best = found();
    return best;
}

bool cpu_trains_in_bfloat16() {
    const auto answer = c10::Dispatcher::singleton().findSchema({"mkldnn::_is_mkldnn_bf16_supported", ""});
    return answer && answer->typed<bool()>().call();
}

namespace norm_kernels {

const Table& best() {
#ifdef ATELIER_X86_KERNELS
    if (best_instructions() == Instructions::avx512) return avx512;
    if (best_instructions() == Instructions::avx2) return avx2;
#endif
    return plain;
}

}  // namespace norm_kernels

namespace winograd_kernels {

const Table& best() {
#ifdef ATELIER_X86_KERNELS
    if (best_instructions() == Instructions::avx512) return avx512;
    if (best_instructions() == Instructions::avx2) return avx2;
#endif
    return plain;
}

}  // namespace winograd_kernels

}  // namespace atelier::ops
