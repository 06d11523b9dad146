#pragma once

#include <array>

namespace atelier::metrics {

using Point = std::array<double, 2>;

}  // namespace atelier::metrics
