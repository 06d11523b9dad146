#pragma once

namespace atelier::backends {

/// Limits LibTorch's threads, of which OMP_NUM_THREADS or its own default sets the number, to the
/// processors that this process may use (core/processors.h).
void limit_threads();

}  // namespace atelier::backends
