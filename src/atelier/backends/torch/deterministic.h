#pragma once

#include "atelier/backends/torch/torch.h"

namespace atelier::backends {

/// While alive, LibTorch uses deterministic GPU algorithms and warns where it has none. The setting
/// is process-wide; the destructor restores the previous one.
class Deterministic {
public:
    Deterministic() { at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true); }
    ~Deterministic() { at::globalContext().setDeterministicAlgorithms(before_, only_warned_); }
    Deterministic(const Deterministic&) = delete;

private:
    bool before_ = at::globalContext().deterministicAlgorithms(),
         only_warned_ = at::globalContext().deterministicAlgorithmsWarnOnly();
};

}  // namespace atelier::backends
