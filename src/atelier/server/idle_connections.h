#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

namespace atelier::server {

/// The connections that wait for their client's next request, longest idle first. When there are
/// too many connections the longest idle one is evicted, so that clients that send nothing cannot
/// block others.
class IdleConnections {
public:
    /// A connection becomes idle. `evict` may be called from any thread until `leave`.
    std::uint64_t enter(std::function<void()> evict) {
        const std::lock_guard lock(mutex_);
        idle_.emplace(++last_, std::move(evict));
        return last_;
    }
    /// The connection is no longer idle. Returns false if it was evicted meanwhile: it must then
    /// end soon and call `ended`.
    bool leave(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        return idle_.erase(number) > 0;
    }
    void ended() {
        const std::lock_guard lock(mutex_);
        --ending_;
    }

    /// Evicts the longest idle connection; returns false if none is idle.
    bool evict_oldest() {
        const std::lock_guard lock(mutex_);
        if (idle_.empty()) return false;
        idle_.begin()->second();
        idle_.erase(idle_.begin());
        ++ending_;
        return true;
    }
    /// Connections that were evicted and have not ended yet.
    std::size_t ending() const {
        const std::lock_guard lock(mutex_);
        return ending_;
    }

private:
    mutable std::mutex mutex_;
    std::uint64_t last_ = 0;
    std::size_t ending_ = 0;
    std::map<std::uint64_t, std::function<void()>> idle_;
};

}  // namespace atelier::server
