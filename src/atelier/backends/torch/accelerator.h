#pragma once

namespace atelier::backends {

/// How accelerators compute, for the whole process.
struct AcceleratorSettings {
    bool tf32 = false;  // products and convolutions of float32 round their factors to 10 bits
                        // of mantissa
    bool deterministic = true;  // the same bits again, at some cost; else whichever kernel is
                                // quickest for the sizes at hand
};

/// Sets all of LibTorch's switches for these. Comes before the first product on a GPU, where cuBLAS
/// reads its part from the environment.
void configure_accelerators(const AcceleratorSettings& settings);

}  // namespace atelier::backends
