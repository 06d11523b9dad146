#pragma once

#include <cstdint>
#include <functional>

namespace atelier::inference {

/// A network that was made ready for batches: by OpenVinoNetwork or NativeNetwork. One thread at a time.
class CompiledNetwork {
public:
    /// Samples that are computed in one go.
    class Piece {
    public:
        virtual ~Piece() = default;
        /// Room for the network's input `i`, float32.
        virtual float* input(std::size_t i) = 0;
        /// Room for every sample's row of the tables, of a network that has tables.
        virtual std::int32_t* rows() = 0;
        /// Computes; the answer stays until the next piece.
        virtual const float* computed() = 0;
    };
    using Each = std::function<void(Piece& piece, std::int64_t first, std::int64_t count)>;

    virtual ~CompiledNetwork() = default;

    /// Cuts `samples` samples into pieces and calls `each` with every piece, its first sample and number of samples. Throws core::Error when the network cannot be
    /// made ready.
    virtual void in_pieces(std::int64_t samples, const Each& each) = 0;
};

}  // namespace atelier::inference
