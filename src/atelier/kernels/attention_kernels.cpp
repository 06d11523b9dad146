#include "atelier/kernels/attention_kernels.h"

#include <utility>

#include "atelier/kernels/vectors.h"

// Compiled once per instruction set, like norm_kernels.cpp: everything but the table at the end is
// in the unnamed namespace.
#ifndef ATELIER_INSTRUCTIONS
#define ATELIER_INSTRUCTIONS plain
#endif

namespace atelier::kernels::attention_kernels {

namespace {

/// Every third element of three consecutive vectors, starting at element `first`.
template <int first, std::size_t... lane>
inline Vector every_third(Vector a, Vector b, Vector c, std::index_sequence<lane...>) {
    // The first shuffle selects the elements from a and b, the second those from c.
    const Bits<Vector> from_two{(first + 3 * lane < 2 * lanes ? first + 3 * lane : 0)...};
    const Bits<Vector> with_third{
        (first + 3 * lane < 2 * lanes ? lane : first + 3 * lane - lanes)...};
    return __builtin_shuffle(__builtin_shuffle(a, b, from_two), c, with_third);
}

/// Elements part*lanes to part*lanes+lanes-1 of q, k and v interleaved.
template <int part, std::size_t... lane>
inline Vector interleaved(Vector q, Vector k, Vector v, std::index_sequence<lane...>) {
    const auto lane_of = [](std::size_t i) { return (part * lanes + i) / 3; };
    const auto of_v = [](std::size_t i) { return (part * lanes + i) % 3 == 2; };
    const Bits<Vector> of_two{
        ((part * lanes + lane) % 3 == 1 ? lanes + lane_of(lane) : lane_of(lane))...};
    const Bits<Vector> with_v{(of_v(lane) ? lanes + lane_of(lane) : lane)...};
    return __builtin_shuffle(__builtin_shuffle(q, k, of_two), v, with_v);
}

constexpr std::make_index_sequence<lanes> all_lanes;

template <class T>
void deinterleave(std::int64_t count, const T* qkv, float* q, float* k, float* v) {
    for_each_vector(count, [&]<class V>(std::int64_t i, V) {
        if constexpr (std::is_same_v<V, float>) {
            q[i] = load<float>(qkv + 3 * i), k[i] = load<float>(qkv + 3 * i + 1),
            v[i] = load<float>(qkv + 3 * i + 2);
        } else {
            const V a = load<V>(qkv + 3 * i), b = load<V>(qkv + 3 * i + lanes),
                    c = load<V>(qkv + 3 * i + 2 * lanes);
            store(q + i, every_third<0>(a, b, c, all_lanes));
            store(k + i, every_third<1>(a, b, c, all_lanes));
            store(v + i, every_third<2>(a, b, c, all_lanes));
        }
    });
}

template <class T>
void interleave(std::int64_t count, const float* q, const float* k, const float* v, T* qkv) {
    for_each_vector(count, [&]<class V>(std::int64_t i, V) {
        if constexpr (std::is_same_v<V, float>) {
            store(qkv + 3 * i, q[i]), store(qkv + 3 * i + 1, k[i]), store(qkv + 3 * i + 2, v[i]);
        } else {
            const V a = load<V>(q + i), b = load<V>(k + i), c = load<V>(v + i);
            store(qkv + 3 * i, interleaved<0>(a, b, c, all_lanes));
            store(qkv + 3 * i + lanes, interleaved<1>(a, b, c, all_lanes));
            store(qkv + 3 * i + 2 * lanes, interleaved<2>(a, b, c, all_lanes));
        }
    });
}

template <class From, class To>
void copy(std::int64_t count, const From* from, To* to) {
    for_each_vector(count, [&]<class V>(std::int64_t i, V) { store(to + i, load<V>(from + i)); });
}

/// Reduces each(i, V{}) for i < count with `join`: vector lanes first, then the remaining elements.
template <class Each, class Join>
inline float reduce(std::int64_t count, float first, const Each& each, const Join& join) {
    Vector all = Vector{} + first;
    float tail = first;
    for_each_vector(count, [&]<class V>(std::int64_t i, V v) {
        if constexpr (std::is_same_v<V, float>) tail = join(tail, each(i, v));
        else all = join(all, each(i, v));
    });
    for (int lane = 0; lane < lanes; ++lane) tail = join(tail, all[lane]);
    return tail;
}

constexpr auto sum_of = [](auto a, auto b) { return a + b; };

void softmax(std::int64_t count, float factor, float* x) {
    const auto value = [&]<class V>(std::int64_t i, V) { return load<V>(x + i); };
    const float largest = reduce(count, x[0], value, [](auto a, auto b) { return a > b ? a : b; });
    for_each_vector(count, [&]<class V>(std::int64_t i, V) {
        store(x + i, exponential(factor * (load<V>(x + i) - largest)));
    });
    const float scale = 1 / reduce(count, 0, value, sum_of);
    for_each_vector(count,
                    [&]<class V>(std::int64_t i, V) { store(x + i, scale * load<V>(x + i)); });
}

void softmax_backward(std::int64_t count, float factor, const float* p, float* gradients) {
    const float mean = reduce(
        count, 0,
        [&]<class V>(std::int64_t i, V) { return load<V>(p + i) * load<V>(gradients + i); },
        sum_of);
    for_each_vector(count, [&]<class V>(std::int64_t i, V) {
        store(gradients + i, factor * load<V>(p + i) * (load<V>(gradients + i) - mean));
    });
}

}  // namespace

extern const Table ATELIER_INSTRUCTIONS;
const Table ATELIER_INSTRUCTIONS{
    {deinterleave<float>, interleave<float>, copy<float, float>, copy<float, float>},
    {deinterleave<Bfloat16>, interleave<Bfloat16>, copy<Bfloat16, float>, copy<float, Bfloat16>},
    softmax,
    softmax_backward};

}  // namespace atelier::kernels::attention_kernels
