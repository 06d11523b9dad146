#pragma once

#include "atelier/ops/torch.h"

namespace atelier::ops {

/// As long as it lives, LibTorch takes algorithms on GPUs that give the same bytes every time, and warns where it has none. The setting is the whole
/// process's, who may have others in it, and is put back.
class Deterministic {
public:
    Deterministic() { at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true); }
    ~Deterministic() { at::globalContext().setDeterministicAlgorithms(before_, only_warned_); }
    Deterministic(const Deterministic&) = delete;

private:
    bool before_ = at::globalContext().deterministicAlgorithms(), only_warned_ = at::globalContext().deterministicAlgorithmsWarnOnly();
};

}  // namespace atelier::ops
