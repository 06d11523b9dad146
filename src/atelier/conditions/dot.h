#pragma once

#include <cstddef>

namespace atelier::conditions {

/// The inner product of two rows of `length` elements, summed in an order that depends only on the
/// length.
float dot(const float* a, const float* b, std::size_t length);
double dot(const double* a, const double* b, std::size_t length);

}  // namespace atelier::conditions
