#include "atelier/kernels/winograd_kernels.h"

#include <array>
#include <utility>

#include "atelier/kernels/vectors.h"

// Compiled once per instruction set, like norm_kernels.cpp: everything but the table at the end is
// in the unnamed namespace.
#ifndef ATELIER_INSTRUCTIONS
#define ATELIER_INSTRUCTIONS plain
#endif
#define ATELIER_UNROLLED _Pragma("GCC unroll 6")

namespace atelier::kernels::winograd_kernels {

namespace {

#if defined(__AVX512F__)
constexpr int rows_per_block = 14, panels_per_block = 2;
#elif defined(__AVX2__)
constexpr int rows_per_block = 6, panels_per_block = 1;
#else
constexpr int rows_per_block = 3, panels_per_block = 1;
#endif
constexpr int parts =
    panel /
    lanes;  // vectors of a panel; rows_per_block * panels_per_block * parts sums stay in registers

// The points are 0, a, -a, b, -b and infinity; 3/4 and 3/2 leave less than half of the rounding
// error of the usual 1 and 2.
constexpr float a = 0.75F, b = 1.5F, a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;
// The scale factors of the points are all in B, since an image is transformed once for all filters.
constexpr float s0 = 1 / (a2 * b2), sa = 1 / (2 * a2 * (a2 - b2)), sb = 1 / (2 * b2 * (b2 - a2));

/// One axis of B^T d, A^T m, A s, G g and G^T s.
inline void input_line(const Vector* d, Vector* to) {
    const Vector even_a = sa * d[4] - (sa * b2) * d[2],
                 odd_a = (sa * a) * d[3] - (sa * a * b2) * d[1];
    const Vector even_b = sb * d[4] - (sb * a2) * d[2],
                 odd_b = (sb * b) * d[3] - (sb * b * a2) * d[1];
    to[0] = s0 * d[4] - (s0 * (a2 + b2)) * d[2] + d[0];
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = d[5] - (a2 + b2) * d[3] + (a2 * b2) * d[1];
}

inline void output_line(const Vector* m, Vector* to) {
    const Vector sum_a = m[1] + m[2], sum_b = m[3] + m[4], away_a = m[1] - m[2],
                 away_b = m[3] - m[4];
    to[0] = m[0] + sum_a + sum_b;
    to[1] = a * away_a + b * away_b;
    to[2] = a2 * sum_a + b2 * sum_b;
    to[3] = a3 * away_a + b3 * away_b + m[5];
}

inline void gradient_line(const Vector* s, Vector* to) {
    const Vector even_a = s[0] + a2 * s[2], odd_a = a * s[1] + a3 * s[3], even_b = s[0] + b2 * s[2],
                 odd_b = b * s[1] + b3 * s[3];
    to[0] = s[0];
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = s[3];
}

inline void filter_line(const Vector* g, Vector* to) {
    const Vector even_a = g[0] + a2 * g[2], even_b = g[0] + b2 * g[2];
    to[0] = g[0];
    to[1] = even_a + a * g[1];
    to[2] = even_a - a * g[1];
    to[3] = even_b + b * g[1];
    to[4] = even_b - b * g[1];
    to[5] = g[2];
}

inline void filter_gradient_line(const Vector* s, Vector* to) {
    const Vector sum_a = s[1] + s[2], sum_b = s[3] + s[4];
    to[0] = s[0] + sum_a + sum_b;
    to[1] = a * (s[1] - s[2]) + b * (s[3] - s[4]);
    to[2] = a2 * sum_a + b2 * sum_b + s[5];
}

/// Transforms both axes: first the columns of a square of from*from elements `get(i)`, then the
/// rows, into a square of to*to elements by put(i, value).
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
void transform_input(std::int64_t channels, const T* const* at, std::int64_t stride,
                     float* values) {
    for (std::int64_t c = 0; c < channels; c += lanes) {
        both_ways<6, 6>(
            input_line, [&](int i) { return load<Vector>(at[i] + c); },
            [&](int i, Vector v) { store(values + i * stride + c, v); });
    }
}

template <class T>
void transform_output(std::int64_t channels, const float* products, std::int64_t stride,
                      const float* bias, T* const* at) {
    for (std::int64_t c = 0; c < channels; c += lanes) {
        const Vector offset = load<Vector>(bias + c);
        both_ways<6, 4>(
            output_line, [&](int i) { return load<Vector>(products + i * stride + c); },
            [&](int i, Vector y) { store(at[i] + c, y + offset); });
    }
}

template <class T>
void transform_gradient(std::int64_t channels, const T* const* at, std::int64_t stride,
                        float* values) {
    for (std::int64_t c = 0; c < channels; c += lanes) {
        both_ways<4, 6>(
            gradient_line, [&](int i) { return load<Vector>(at[i] + c); },
            [&](int i, Vector v) { store(values + i * stride + c, v); });
    }
}

void transform_filters(const Filters& f, std::int64_t column, const float* filters, float* values) {
    for (std::int64_t c = 0; c < f.in; ++c) {
        alignas(panel * sizeof(float)) float g[9][panel];
        for (std::int64_t k = 0; k < panel; ++k) {
            const float* one = filters + c * f.row_step + (column + k) * f.column_step;
            for (int i = 0; i < 9; ++i) g[i][k] = one[f.rotated ? 8 - i : i];
        }
        float* const to = values + column * f.in + c * panel;
        for (int k = 0; k < panel; k += lanes) {
            both_ways<3, 6>(
                filter_line, [&](int i) { return load<Vector>(&g[i][k]); },
                [&](int i, Vector u) { store(to + i * f.stride() + k, u); });
        }
    }
}

/// The point that one row of the points has in common; the first is 0 and the last infinity.
constexpr float row_points[6] = {0, a, -a, b, -b, 0};

template <int row>
void transform_panel_row(std::int64_t in, const float* filters, std::int64_t stride,
                         float* values) {
    constexpr float point = row_points[row];
    for (std::int64_t c = 0; c < in; ++c, filters += 9 * panel, values += panel) {
        for (int k = 0; k < panel; k += lanes) {
            Vector half[3], out[6];
            ATELIER_UNROLLED for (int j = 0; j < 3; ++j) {
                const auto g = [&](int i) {
                    return load<Vector>(filters + (i * 3 + j) * panel + k);
                };
                half[j] = row == 0 ? g(0) : row == 5 ? g(2) : g(0) + point * (g(1) + point * g(2));
            }
            filter_line(half, out);
            ATELIER_UNROLLED for (int j = 0; j < 6; ++j) store(values + j * stride + k, out[j]);
        }
    }
}

void transform_panel(std::int64_t in, const float* filters, std::int64_t row, std::int64_t stride,
                     float* values) {
    static constexpr std::array rows{transform_panel_row<0>, transform_panel_row<1>,
                                     transform_panel_row<2>, transform_panel_row<3>,
                                     transform_panel_row<4>, transform_panel_row<5>};
    rows[static_cast<std::size_t>(row)](in, filters, stride, values);
}

void filter_gradient(const Filters& f, std::int64_t column, const float* gradients,
                     float* filters) {
    for (std::int64_t c = 0; c < f.in; ++c) {
        alignas(panel * sizeof(float)) float g[9][panel];
        const float* from = gradients + c * f.out + column;
        for (int k = 0; k < panel; k += lanes) {
            both_ways<6, 3>(
                filter_gradient_line,
                [&](int i) { return load<Vector>(from + i * f.stride() + k); },
                [&](int i, Vector v) { store(&g[i][k], v); });
        }
        for (std::int64_t k = 0; k < panel; ++k) {
            float* one = filters + c * f.row_step + (column + k) * f.column_step;
            for (int i = 0; i < 9; ++i) one[i] = g[i][k];
        }
    }
}

/// The factors of a product: a(row,k) is at left + row*row_step + k*inner_step, b(k) of a panel at
/// right + panel*panel_step + k*right_step.
struct Factors {
    const float* left;
    std::int64_t row_step, inner_step;
    const float* right;
    std::int64_t right_step, panel_step;
};

/// `rows` rows of some panels: c = [c +] sum over k of a(row, k) * b(k).
template <int rows, int panels, bool add>
void block(std::int64_t inner, const Factors& f, float* to, std::int64_t to_step) {
    Vector sums[rows][panels * parts];
    const auto address = [&](std::int64_t r, std::int64_t p) {
        return to + r * to_step + p * lanes;
    };
    for (int r = 0; r < rows; ++r) {
        for (int p = 0; p < panels * parts; ++p)
            sums[r][p] = add ? load<Vector>(address(r, p)) : Vector{};
    }
    const float *left = f.left, *right = f.right;
    for (std::int64_t k = 0; k < inner; ++k, left += f.inner_step, right += f.right_step) {
        Vector b_k[panels * parts];
        for (int p = 0; p < panels * parts; ++p)
            b_k[p] =
                load<Vector>(right + p / parts * f.panel_step + std::int64_t{p % parts} * lanes);
        for (int r = 0; r < rows; ++r) {
            const float factor = left[r * f.row_step];
            for (int p = 0; p < panels * parts; ++p) sums[r][p] += factor * b_k[p];
        }
    }
    for (int r = 0; r < rows; ++r) {
        for (int p = 0; p < panels * parts; ++p) store(address(r, p), sums[r][p]);
    }
}

template <int panels, bool add, int... rows>
constexpr auto blocks_by_rows(std::integer_sequence<int, rows...>) {
    return std::array{block<rows + 1, panels, add>...};
}

/// `count` rows in as few blocks as fit the registers, of about equal size, since small blocks
/// would wait for their own sums. Every row is summed in the same order, whatever block it is in.
template <int panels, bool add>
void blocks(std::int64_t count, std::int64_t inner, Factors f, float* to, std::int64_t to_step) {
    static constexpr auto by_rows =
        blocks_by_rows<panels, add>(std::make_integer_sequence<int, rows_per_block>());
    for (std::int64_t needed = (count + rows_per_block - 1) / rows_per_block; needed > 0;
         --needed) {
        const std::int64_t rows = (count + needed - 1) / needed;
        by_rows[static_cast<std::size_t>(rows - 1)](inner, f, to, to_step);
        count -= rows;
        f.left += rows * f.row_step;
        to += rows * to_step;
    }
}

template <bool add>
void all_blocks(std::int64_t rows, std::int64_t inner, std::int64_t columns, Factors f, float* to,
                std::int64_t to_step) {
    std::int64_t column = 0;
    for (; column + panels_per_block * panel <= columns;
         column += panels_per_block * panel, f.right += panels_per_block * f.panel_step) {
        blocks<panels_per_block, add>(rows, inner, f, to + column, to_step);
    }
    for (; column < columns; column += panel, f.right += f.panel_step)
        blocks<1, add>(rows, inner, f, to + column, to_step);
}

void multiply(std::int64_t rows, std::int64_t inner, std::int64_t columns, const float* left,
              std::int64_t left_step, const float* right, std::int64_t right_step, bool add,
              float* to, std::int64_t to_step) {
    (add ? all_blocks<true> : all_blocks<false>)(rows, inner, columns,
                                                 {left, left_step, 1, right, panel, right_step}, to,
                                                 to_step);
}

void multiply_transposed(std::int64_t rows, std::int64_t inner, std::int64_t columns,
                         const float* left, const float* right, bool add, float* to) {
    (add ? all_blocks<true> : all_blocks<false>)(inner, rows, columns,
                                                 {left, 1, inner, right, columns, panel}, to,
                                                 columns);
}

}  // namespace

extern const Table ATELIER_INSTRUCTIONS;
const Table ATELIER_INSTRUCTIONS{
    {transform_input<float>, transform_output<float>, transform_gradient<float>},
    {transform_input<Bfloat16>, transform_output<Bfloat16>, transform_gradient<Bfloat16>},
    multiply,
    multiply_transposed,
    transform_filters,
    transform_panel,
    filter_gradient};

}  // namespace atelier::kernels::winograd_kernels
