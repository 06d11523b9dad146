#pragma once

#include <cstdint>

/// Inner loops of 3x3 convolutions by Winograd's minimal filtering F(4x4,3x3) (Lavin and Gray,
/// arXiv 1509.09308): 36 products per tile of 4x4 results instead of the 144 of a direct
/// convolution. Torch-free; channels innermost (NHWC) and a multiple of `panel`; compiled for
/// several instruction sets like norm_kernels.h.
namespace atelier::kernels::winograd_kernels {

inline constexpr std::int64_t tile = 4;     // output pixels per axis
inline constexpr std::int64_t window = 6;   // input pixels per axis
inline constexpr std::int64_t points = 36;  // of the transformed domain
inline constexpr std::int64_t panel = 16;   // columns per panel of a right factor

/// bfloat16 bits, so that the loops do not depend on torch.
using Bfloat16 = std::uint16_t;

/// The loops for images of type T; intermediate values are float32. `at` points to a row of
/// `channels` elements per pixel; values of point p begin at p*stride.
template <class T>
struct Loops {
    /// The input transform of a window of 36 pixels: B^T d B.
    void (*transform_input)(std::int64_t channels, const T* const* at, std::int64_t stride,
                            float* values);

    /// The output transform of a tile of 16 pixels: A^T m A + bias[c].
    void (*transform_output)(std::int64_t channels, const float* products, std::int64_t stride,
                             const float* bias, T* const* at);

    /// The gradient with respect to the products, from that of a tile of 16 pixels: A s A^T.
    void (*transform_gradient)(std::int64_t channels, const T* const* at, std::int64_t stride,
                               float* values);
};

/// The memory layout of 3x3 filters: the one of input c and output k begins at c*row_step +
/// k*column_step.
struct Filters {
    std::int64_t in, out, row_step, column_step;
    bool rotated = false;  // by 180 degrees

    /// Distance in floats between consecutive points; not a power of two, so that the points do not
    /// map to the same cache set.
    std::int64_t stride() const { return in * out + panel; }
};

struct Table {
    Loops<float> float32;
    Loops<Bfloat16> bfloat16;

    /// c [rows,columns] = [c +] a [rows,inner] * b, where the rows of a and c are a_step and c_step
    /// floats apart, and b consists of panels [inner,16] that are b_step floats apart.
    void (*multiply)(std::int64_t rows, std::int64_t inner, std::int64_t columns, const float* a,
                     std::int64_t a_step, const float* b, std::int64_t b_step, bool add, float* c,
                     std::int64_t c_step);

    /// c [inner,columns] = [c +] a^T * b, of a [rows,inner] and b [rows,columns].
    void (*multiply_transposed)(std::int64_t rows, std::int64_t inner, std::int64_t columns,
                                const float* a, const float* b, bool add, float* c);

    /// The filter transform G g G^T of a panel of filters, from `column` on: [36 at the stride,
    /// out/16, in, 16], as multiply expects them.
    void (*transform_filters)(const Filters& f, std::int64_t column, const float* filters,
                              float* values);

    /// One row of the points, 6*row to 6*row+5, of the transform of a panel of filters [in,9,16]:
    /// [6 at the stride, in, 16].
    void (*transform_panel)(std::int64_t in, const float* filters, std::int64_t row,
                            std::int64_t stride, float* values);

    /// The gradient with respect to a panel of filters, G^T s G, from that with respect to the
    /// transformed filters, [36 at the stride, in, out].
    void (*filter_gradient)(const Filters& f, std::int64_t column, const float* gradients,
                            float* filters);
};

/// Compilations of the loops; only `plain` runs on every processor.
extern const Table plain;
#ifdef ATELIER_X86_KERNELS
extern const Table avx2, avx512;
#endif

/// The fastest table that this processor can run.
const Table& best();

}  // namespace atelier::kernels::winograd_kernels
