#pragma once

namespace atelier::core {

/// From now on freed memory stays with this process, where its C library is told so (glibc): for training, whose every step frees and wants the same tensors. Handing them back
/// to the system and faulting them in again took a tenth of a step; the peak stays as it is.
void keep_freed_memory();

}  // namespace atelier::core
