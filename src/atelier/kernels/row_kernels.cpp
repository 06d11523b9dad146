#include "atelier/kernels/row_kernels.h"

#include "atelier/kernels/vectors.h"

// Compiled once per instruction set, like norm_kernels.cpp: everything but the table at the end is
// in the unnamed namespace.
#ifndef ATELIER_INSTRUCTIONS
#define ATELIER_INSTRUCTIONS plain
#endif

namespace atelier::kernels::row_kernels {

namespace {

void silu(std::int64_t count, const float* x, float* y) {
    for_each_vector(count, [&]<class V>(std::int64_t i, V) {
        store(y + i, load<V>(x + i) * sigmoid(load<V>(x + i)));
    });
}

void add(std::int64_t count, const float* a, const float* b, float factor, float* y) {
    for_each_vector(count, [&]<class V>(std::int64_t i, V) {
        store(y + i, factor * (load<V>(a + i) + load<V>(b + i)));
    });
}

void weighted_sum(std::int64_t count, std::int64_t terms, const float* const* x,
                  const float* weights, float* y) {
    for_each_vector(count, [&]<class V>(std::int64_t i, V) {
        V total = weights[0] * load<V>(x[0] + i);
        for (std::int64_t t = 1; t < terms; ++t) total += weights[t] * load<V>(x[t] + i);
        store(y + i, total);
    });
}

void moments(std::int64_t count, std::int64_t channels, const float* x, const float* from,
             float* sums) {
    for_each_vector(channels, [&]<class V>(std::int64_t c, V sum) {
        const V start = load<V>(from + c);
        V squares{};
        for (std::int64_t p = 0; p < count; ++p) {
            const V away = load<V>(x + p * channels + c) - start;
            sum += away;
            squares += away * away;
        }
        store(sums + c, sum);
        store(sums + channels + c, squares);
    });
}

}  // namespace

extern const Table ATELIER_INSTRUCTIONS;
const Table ATELIER_INSTRUCTIONS{silu, add, weighted_sum, moments};

}  // namespace atelier::kernels::row_kernels
