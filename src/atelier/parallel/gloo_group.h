#pragma once

#include <functional>
#include <memory>

#include "atelier/parallel/group.h"
#include "atelier/parallel/nccl_module.h"
#include "atelier/parallel/place.h"

namespace atelier::parallel {

/// Texts by name that all ranks of a job see, kept by rank 0 or by torchrun's agent.
class SharedTexts {
public:
    virtual ~SharedTexts() = default;
    virtual void set(const std::string& name, const std::string& text) = 0;
    /// Waits until another rank has set it. Throws RankLost where none does.
    virtual std::string get(const std::string& name) = 0;
};

/// c10d's TCPStore. Throws RankLost where rank 0 cannot be reached within `seconds`, core::Error
/// where the port is taken.
std::shared_ptr<SharedTexts> meet(const Place& place, std::int64_t seconds);

/// c10d's Gloo over TCP, for tensors on the CPU, where `texts` came from meet().
std::unique_ptr<Group> make_gloo_group(const Place& place,
                                       const std::shared_ptr<SharedTexts>& texts);

/// c10d's NCCL, for tensors on GPUs, by an open module. Ranks connect at the first operation, where
/// NCCL refuses two of them on one GPU.
std::unique_ptr<Group> make_nccl_group(const NcclModule& module, const Place& place,
                                       const std::shared_ptr<SharedTexts>& texts);

}  // namespace atelier::parallel
