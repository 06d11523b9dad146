#pragma once

namespace atelier::ops {

/// LibTorch's threads, as many as OMP_NUM_THREADS or its own default says, but no more than this process has processors for (core/processors.h).
void limit_threads();

}  // namespace atelier::ops
