#pragma once

namespace atelier::parallel {

/// How the gradients of micro-batches become one.
enum class Reduction {
    exact,    // in whole numbers: the same bits for any number of ranks
    floating  // in float32: quicker, and rounded in an order that depends on the number of ranks
};

}  // namespace atelier::parallel
