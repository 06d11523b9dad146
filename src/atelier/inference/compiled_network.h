#pragma once

#include <cstdint>
#include <functional>

namespace atelier::inference {

/// A network compiled for batched inference by OpenVinoNetwork or NativeNetwork. Not thread-safe.
class CompiledNetwork {
public:
    /// The buffers of samples that are computed together.
    class Batch {
    public:
        virtual ~Batch() = default;
        /// The buffer of the network's input `i`, float32, to be filled before infer().
        virtual float* input(std::size_t i) = 0;
        /// For each sample its row of the constant label embeddings; only of networks compiled for
        /// one noise level and given classes.
        virtual std::int32_t* rows() = 0;
        /// Runs the network. The result is valid until the next batch.
        virtual const float* infer() = 0;
    };
    using OnBatch = std::function<void(Batch& batch, std::int64_t first, std::int64_t count)>;

    virtual ~CompiledNetwork() = default;

    /// Splits `samples` samples into batches and calls `on_batch` with each batch, the index of its
    /// first sample and its number of samples. Throws core::Error when the network cannot be
    /// compiled.
    virtual void for_each_batch(std::int64_t samples, const OnBatch& on_batch) = 0;
};

}  // namespace atelier::inference
