#include "atelier/backends/torch/bfloat16.h"

#include <ATen/core/dispatch/Dispatcher.h>

namespace atelier::backends {

bool cpu_trains_in_bfloat16() {
#ifdef ATELIER_X86_KERNELS
    if (!__builtin_cpu_supports("avx512bf16"))
        return false;  // with AVX-512 alone the library emulates bfloat16
#endif
    const auto answer =
        c10::Dispatcher::singleton().findSchema({"mkldnn::_is_mkldnn_bf16_supported", ""});
    return answer && answer->typed<bool()>().call();
}

}  // namespace atelier::backends
