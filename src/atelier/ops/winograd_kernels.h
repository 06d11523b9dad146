#pragma once

#include <cstdint>

/// Inner loops of 3x3 convolutions by Winograd's minimal filtering F(4x4,3x3) (Lavin and Gray, arXiv 1509.09308): 36 products for a tile of 4x4
/// results where a direct convolution takes 144. Torch-free, channels innermost (NHWC) and a multiple of `panel`; compiled for several instruction
/// sets as norm_kernels.h is.
namespace atelier::ops::winograd_kernels {

inline constexpr std::int64_t tile = 4;     // pixels of output, each way
inline constexpr std::int64_t window = 6;   // pixels of input under them
inline constexpr std::int64_t points = 36;  // where tiles and filters are evaluated as polynomials
inline constexpr std::int64_t panel = 16;   // columns that are multiplied at once

/// bfloat16 bits, so that the loops need nothing of torch.
using Bfloat16 = std::uint16_t;

/// The loops for images of type T; what lies between is float32. `at` points to a row of `channels` numbers for every pixel; numbers of point p begin at
/// p*stride.
template <class T>
struct Loops {
    /// A window of 36 pixels at the points: B^T d B.
    void (*read)(std::int64_t channels, const T* const* at, std::int64_t stride, float* values);

    /// A tile of 16 pixels from its products at the points: A^T m A + bias[c].
    void (*write)(std::int64_t channels, const float* products, std::int64_t stride, const float* bias, T* const* at);

    /// Slopes on the products from slopes on a tile of 16 pixels: A s A^T.
    void (*read_slopes)(std::int64_t channels, const T* const* at, std::int64_t stride, float* values);
};

/// How filters of 3x3 numbers lie in memory: that of input c and output k at c*row_step + k*column_step.
struct Filters {
    std::int64_t in, out, row_step, column_step;
    bool turned = false;  // by half a turn

    /// Numbers from one point's to the next point's: apart from a power of two, for which all would fall on one line of the cache.
    std::int64_t stride() const { return in * out + panel; }
};

struct Table {
    Loops<float> float32;
    Loops<Bfloat16> bfloat16;

    /// c [rows,columns] = [c +] a [rows,inner] * b, of rows a_step and c_step numbers apart and of panels [inner,16] that are b_step numbers apart.
    void (*multiply)(std::int64_t rows, std::int64_t inner, std::int64_t columns, const float* a, std::int64_t a_step, const float* b, std::int64_t b_step,
                     bool add, float* c, std::int64_t c_step);

    /// c [inner,columns] = [c +] a^T * b, of a [rows,inner] and b [rows,columns].
    void (*multiply_turned)(std::int64_t rows, std::int64_t inner, std::int64_t columns, const float* a, const float* b, bool add, float* c);

    /// A panel of filters at the points, G g G^T, from `column` on: [36 at the stride, out/16, in, 16], as multiply wants them.
    void (*read_filters)(const Filters& f, std::int64_t column, const float* filters, float* values);

    /// A panel of filters [in,9,16] at a row of the points, 6*row to 6*row+5: [6 at the stride, in, 16].
    void (*read_panel)(std::int64_t in, const float* filters, std::int64_t row, std::int64_t stride, float* values);

    /// The slopes on a panel of filters from those at the points, G^T s G: [36 at the stride, in, out].
    void (*write_filters)(const Filters& f, std::int64_t column, const float* slopes, float* filters);
};

/// Compilations of the loops; only `plain` runs on every processor.
extern const Table plain;
#ifdef ATELIER_X86_KERNELS
extern const Table avx2, avx512;
#endif

/// The fastest table that this processor can run.
const Table& best();

}  // namespace atelier::ops::winograd_kernels
