#include "atelier/ops/row_kernels.h"

#include "atelier/ops/vectors.h"

// Compiled once for every instruction set, as norm_kernels.cpp is: all but the table at the end stays in the unnamed namespace.
#ifndef ATELIER_INSTRUCTIONS
#define ATELIER_INSTRUCTIONS plain
#endif

namespace atelier::ops::row_kernels {

namespace {

void silu(std::int64_t count, const float* x, float* y) {
    in_vectors(count, [&]<class V>(std::int64_t i, V) { store(y + i, load<V>(x + i) * sigmoid(load<V>(x + i))); });
}

void add(std::int64_t count, const float* a, const float* b, float factor, float* y) {
    in_vectors(count, [&]<class V>(std::int64_t i, V) { store(y + i, factor * (load<V>(a + i) + load<V>(b + i))); });
}

void weigh(std::int64_t count, std::int64_t terms, const float* const* x, const float* weights, float* y) {
    in_vectors(count, [&]<class V>(std::int64_t i, V) {
        V total = weights[0] * load<V>(x[0] + i);
        for (std::int64_t t = 1; t < terms; ++t) total += weights[t] * load<V>(x[t] + i);
        store(y + i, total);
    });
}

void moments(std::int64_t count, std::int64_t channels, const float* x, const float* from, float* sums) {
    in_vectors(channels, [&]<class V>(std::int64_t c, V sum) {
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

/// Joins all numbers of a vector's places and of those left by `join`.
template <class Join>
inline float joined(std::int64_t count, const float* x, float first, const Join& join) {
    Vector all = Vector{} + first;
    float rest = first;
    in_vectors(count, [&]<class V>(std::int64_t i, V) {
        if constexpr (std::is_same_v<V, float>) rest = join(rest, x[i]);
        else all = join(all, load<V>(x + i));
    });
    for (int lane = 0; lane < lanes; ++lane) rest = join(rest, all[lane]);
    return rest;
}

void softmax(std::int64_t count, float factor, float* x) {
    const float largest = joined(count, x, x[0], [](auto a, auto b) { return a > b ? a : b; });
    in_vectors(count, [&]<class V>(std::int64_t i, V) { store(x + i, exponential(factor * (load<V>(x + i) - largest))); });
    const float share = 1 / joined(count, x, 0, [](auto a, auto b) { return a + b; });
    in_vectors(count, [&]<class V>(std::int64_t i, V) { store(x + i, share * load<V>(x + i)); });
}

}  // namespace

extern const Table ATELIER_INSTRUCTIONS;
const Table ATELIER_INSTRUCTIONS{silu, add, weigh, moments, softmax};

}  // namespace atelier::ops::row_kernels
