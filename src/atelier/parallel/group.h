#pragma once

#include <string>

#include "atelier/backends/torch/torch.h"

namespace atelier::parallel {

/// Operations that all ranks take part in, in the same order, on tensors of the same type and
/// shape. Each throws where the connection to another rank breaks.
class Group {
public:
    virtual ~Group() = default;

    /// "Gloo": for messages.
    virtual std::string name() const = 0;
    /// Whether it takes tensors of that kind of device; the others are copied to the host.
    virtual bool takes(at::DeviceType device) const = 0;

    /// Replaces `values` [N] (int64, float32, float64) by their sum over ranks, the same bits on
    /// all of them; the order in which ranks are added is the group's.
    virtual void sum(Tensor values) = 0;
    /// Replaces `values` [N] by those of rank `from`.
    virtual void broadcast(Tensor values, int from) = 0;
    /// The `row` [N] of every rank: [ranks, N].
    virtual Tensor gather(const Tensor& row) = 0;
};

}  // namespace atelier::parallel
