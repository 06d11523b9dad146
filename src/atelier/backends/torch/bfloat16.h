#pragma once

namespace atelier::backends {

/// Whether LibTorch computes bfloat16 convolutions with this processor's own instructions. Where it
/// does not, they take about ten times as long as in float32.
bool cpu_trains_in_bfloat16();

}  // namespace atelier::backends
