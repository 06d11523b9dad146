#include "atelier/ops/winograd_kernels.h"

#include <array>
#include <utility>

// Compiled once for every instruction set, as norm_kernels.cpp is: all but the table at the end stays in the unnamed namespace.
#ifndef ATELIER_INSTRUCTIONS
#define ATELIER_INSTRUCTIONS plain
#endif
#define ATELIER_UNROLLED _Pragma("GCC unroll 6")

namespace atelier::ops::winograd_kernels {

namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16, rows_at_once = 14;
#elif defined(__AVX2__)
constexpr int lanes = 8, rows_at_once = 6;
#else
constexpr int lanes = 4, rows_at_once = 3;
#endif
constexpr int parts = panel / lanes;  // vectors of a panel; rows_at_once * parts sums stay in registers

using Vector = float __attribute__((vector_size(lanes * sizeof(float))));
using Bits = std::uint32_t __attribute__((vector_size(lanes * sizeof(float))));
using Halves = Bfloat16 __attribute__((vector_size(lanes * sizeof(Bfloat16))));

// The same, anywhere in memory.
using LooseVector = float __attribute__((vector_size(lanes * sizeof(float)), aligned(4), may_alias));
using LooseHalves = Bfloat16 __attribute__((vector_size(lanes * sizeof(Bfloat16)), aligned(2), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const LooseVector*>(from); }

inline Vector load(const Bfloat16* from) {
    return __builtin_bit_cast(Vector, __builtin_convertvector(*reinterpret_cast<const LooseHalves*>(from), Bits) << 16);
}

inline void store(float* to, Vector v) { *reinterpret_cast<LooseVector*>(to) = v; }

/// Rounds to nearest, ties to even.
inline void store(Bfloat16* to, Vector v) {
    const Bits bits = __builtin_bit_cast(Bits, v);
    *reinterpret_cast<LooseHalves*>(to) = __builtin_convertvector((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16, Halves);
}

// The points are 0, a, -a, b, -b and infinity; 3/4 and 3/2 leave less than half of the rounding error of the usual 1 and 2.
constexpr float a = 0.75F, b = 1.5F, a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;
constexpr float g0 = 1 / (a2 * b2), ga = 1 / (2 * a2 * (a2 - b2)), gb = 1 / (2 * b2 * (b2 - a2));

/// One way of B^T d, A^T m, A s, G g and G^T s.
inline void read_line(const Vector* d, Vector* to) {
    const Vector even_a = d[4] - b2 * d[2], odd_a = a * (d[3] - b2 * d[1]), even_b = d[4] - a2 * d[2], odd_b = b * (d[3] - a2 * d[1]);
    to[0] = d[4] - (a2 + b2) * d[2] + (a2 * b2) * d[0];
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = d[5] - (a2 + b2) * d[3] + (a2 * b2) * d[1];
}

inline void write_line(const Vector* m, Vector* to) {
    const Vector sum_a = m[1] + m[2], sum_b = m[3] + m[4], away_a = m[1] - m[2], away_b = m[3] - m[4];
    to[0] = m[0] + sum_a + sum_b;
    to[1] = a * away_a + b * away_b;
    to[2] = a2 * sum_a + b2 * sum_b;
    to[3] = a3 * away_a + b3 * away_b + m[5];
}

inline void slope_line(const Vector* s, Vector* to) {
    const Vector even_a = s[0] + a2 * s[2], odd_a = a * s[1] + a3 * s[3], even_b = s[0] + b2 * s[2], odd_b = b * s[1] + b3 * s[3];
    to[0] = s[0];
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = s[3];
}

inline void filter_line(const Vector* g, Vector* to) {
    to[0] = g0 * g[0];
    to[1] = ga * (g[0] + a * g[1] + a2 * g[2]);
    to[2] = ga * (g[0] - a * g[1] + a2 * g[2]);
    to[3] = gb * (g[0] + b * g[1] + b2 * g[2]);
    to[4] = gb * (g[0] - b * g[1] + b2 * g[2]);
    to[5] = g[2];
}

inline void filter_slope_line(const Vector* s, Vector* to) {
    const Vector sum_a = ga * (s[1] + s[2]), sum_b = gb * (s[3] + s[4]);
    to[0] = g0 * s[0] + sum_a + sum_b;
    to[1] = (ga * a) * (s[1] - s[2]) + (gb * b) * (s[3] - s[4]);
    to[2] = a2 * sum_a + b2 * sum_b + s[5];
}

/// Both ways: the columns of a square of from*from numbers `get(i)`, then the rows, to a square of to*to by put(i, number).
template <int from, int to, class Line, class Get, class Put>
inline void both_ways(const Line& line, const Get& get, const Put& put) {
    Vector half[to][from];
    ATELIER_UNROLLED for (int j = 0; j < from; ++j) {
        Vector column[from], out[to];
        ATELIER_UNROLLED for (int i = 0; i < from; ++i) column[i] = get(i * from + j);
        line(column, out);
        ATELIER_UNROLLED for (int i = 0; i < to; ++i) half[i][j] = out[i];
    }
    ATELIER_UNROLLED for (int i = 0; i < to; ++i) {
        Vector out[to];
        line(half[i], out);
        ATELIER_UNROLLED for (int j = 0; j < to; ++j) put(i * to + j, out[j]);
    }
}

template <class T>
void read(std::int64_t channels, const T* const* at, std::int64_t stride, float* values) {
    for (std::int64_t c = 0; c < channels; c += lanes) {
        both_ways<6, 6>(read_line, [&](int i) { return load(at[i] + c); }, [&](int i, Vector v) { store(values + i * stride + c, v); });
    }
}

template <class T>
void write(std::int64_t channels, const float* products, std::int64_t stride, const float* bias, T* const* at) {
    for (std::int64_t c = 0; c < channels; c += lanes) {
        const Vector offset = load(bias + c);
        both_ways<6, 4>(write_line, [&](int i) { return load(products + i * stride + c); }, [&](int i, Vector y) { store(at[i] + c, y + offset); });
    }
}

template <class T>
void read_slopes(std::int64_t channels, const T* const* at, std::int64_t stride, float* values) {
    for (std::int64_t c = 0; c < channels; c += lanes) {
        both_ways<4, 6>(slope_line, [&](int i) { return load(at[i] + c); }, [&](int i, Vector v) { store(values + i * stride + c, v); });
    }
}

void read_filters(const Filters& f, std::int64_t column, const float* filters, float* values) {
    for (std::int64_t c = 0; c < f.in; ++c) {
        alignas(panel * sizeof(float)) float g[9][panel];
        for (std::int64_t k = 0; k < panel; ++k) {
            const float* one = filters + c * f.row_step + (column + k) * f.column_step;
            for (int i = 0; i < 9; ++i) g[i][k] = one[f.turned ? 8 - i : i];
        }
        float* const to = values + column * f.in + c * panel;
        for (int k = 0; k < panel; k += lanes) {
            both_ways<3, 6>(filter_line, [&](int i) { return load(&g[i][k]); }, [&](int i, Vector u) { store(to + i * f.stride() + k, u); });
        }
    }
}

void write_filters(const Filters& f, std::int64_t column, const float* slopes, float* filters) {
    for (std::int64_t c = 0; c < f.in; ++c) {
        alignas(panel * sizeof(float)) float g[9][panel];
        const float* from = slopes + c * f.out + column;
        for (int k = 0; k < panel; k += lanes) {
            both_ways<6, 3>(filter_slope_line, [&](int i) { return load(from + i * f.stride() + k); }, [&](int i, Vector v) { store(&g[i][k], v); });
        }
        for (std::int64_t k = 0; k < panel; ++k) {
            float* one = filters + c * f.row_step + (column + k) * f.column_step;
            for (int i = 0; i < 9; ++i) one[i] = g[i][k];
        }
    }
}

/// `rows` rows of one panel: c = [c +] sum over k of a(row, k) * b(k).
template <int rows, bool add>
void block(std::int64_t inner, const float* left, std::int64_t row_step, std::int64_t inner_step, const float* right, std::int64_t right_step,
                  float* to, std::int64_t to_step) {
    Vector sums[rows][parts];
    for (int r = 0; r < rows; ++r) {
        for (int p = 0; p < parts; ++p) sums[r][p] = add ? load(to + r * to_step + p * lanes) : Vector{};
    }
    for (std::int64_t k = 0; k < inner; ++k) {
        Vector b_k[parts];
        for (int p = 0; p < parts; ++p) b_k[p] = load(right + k * right_step + p * lanes);
        for (int r = 0; r < rows; ++r) {
            const float factor = left[r * row_step + k * inner_step];
            for (int p = 0; p < parts; ++p) sums[r][p] += factor * b_k[p];
        }
    }
    for (int r = 0; r < rows; ++r) {
        for (int p = 0; p < parts; ++p) store(to + r * to_step + p * lanes, sums[r][p]);
    }
}

template <bool add, int... rows>
constexpr auto blocks_by_rows(std::integer_sequence<int, rows...>) {
    return std::array{block<rows + 1, add>...};
}

/// `count` rows in as few blocks as their sums fit the registers, of about equal sizes: a block of few rows would wait for its own sums. Every row is summed in the
/// same order, whatever block it is in.
template <bool add>
void blocks(std::int64_t count, std::int64_t inner, const float* left, std::int64_t row_step, std::int64_t inner_step, const float* right,
            std::int64_t right_step, float* to, std::int64_t to_step) {
    static constexpr auto by_rows = blocks_by_rows<add>(std::make_integer_sequence<int, rows_at_once>());
    for (std::int64_t needed = (count + rows_at_once - 1) / rows_at_once; needed > 0; --needed) {
        const std::int64_t rows = (count + needed - 1) / needed;
        by_rows[static_cast<std::size_t>(rows - 1)](inner, left, row_step, inner_step, right, right_step, to, to_step);
        count -= rows;
        left += rows * row_step;
        to += rows * to_step;
    }
}

void multiply(std::int64_t rows, std::int64_t inner, std::int64_t columns, const float* left, const float* right, float* to) {
    for (std::int64_t k = 0; k < columns; k += panel) {
        blocks<false>(rows, inner, left, inner, 1, right + k * inner, panel, to + k, columns);
    }
}

void multiply_turned(std::int64_t rows, std::int64_t inner, std::int64_t columns, const float* left, const float* right, bool add, float* to) {
    for (std::int64_t k = 0; k < columns; k += panel) {
        if (add) blocks<true>(inner, rows, left, 1, inner, right + k, columns, to + k, columns);
        else blocks<false>(inner, rows, left, 1, inner, right + k, columns, to + k, columns);
    }
}

}  // namespace

extern const Table ATELIER_INSTRUCTIONS;
const Table ATELIER_INSTRUCTIONS{{read<float>, write<float>, read_slopes<float>},
                                 {read<Bfloat16>, write<Bfloat16>, read_slopes<Bfloat16>},
                                 multiply, multiply_turned, read_filters, write_filters};

}  // namespace atelier::ops::winograd_kernels
