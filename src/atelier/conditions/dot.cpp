#include "atelier/conditions/dot.h"

// Not with the thread sanitizer: the loader selects a clone before the sanitizer is initialised,
// and its calls there crash.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define ATELIER_WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ATELIER_WIDEST
#endif

namespace atelier::conditions {

namespace {

/// Accumulates in as many lanes as the widest vector registers have, so that the compiler can
/// vectorise.
template <class T>
[[gnu::always_inline]] inline T lane_sums(const T* a, const T* b, std::size_t length) {
    constexpr std::size_t lanes = 128 / sizeof(T);
    T sums[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= length; i += lanes) {
        for (std::size_t lane = 0; lane < lanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
    }
    for (; i < length; ++i) sums[i % lanes] += a[i] * b[i];
    T total = 0;
    for (const T sum : sums) total += sum;
    return total;
}

}  // namespace

ATELIER_WIDEST float dot(const float* a, const float* b, std::size_t length) {
    return lane_sums(a, b, length);
}
ATELIER_WIDEST double dot(const double* a, const double* b, std::size_t length) {
    return lane_sums(a, b, length);
}

}  // namespace atelier::conditions
