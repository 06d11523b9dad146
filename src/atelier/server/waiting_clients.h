#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

namespace atelier::server {

/// The connections on which the server waits for a client to send a request, in the order in which they began to wait. When there are too many connections
/// one of these is given up, so that clients who send nothing cannot keep out those who do.
class WaitingClients {
public:
    /// A connection begins to wait. `give_up` may be called, by any thread, until `leave`.
    std::uint64_t enter(std::function<void()> give_up) {
        const std::lock_guard lock(mutex_);
        waiting_.emplace(++last_, std::move(give_up));
        return last_;
    }
    /// It waits no more. False when it was given up meanwhile: then it ends as soon as it can, and says so with `ended`.
    bool leave(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        return waiting_.erase(number) > 0;
    }
    void ended() {
        const std::lock_guard lock(mutex_);
        --ending_;
    }

    /// Has the one that has waited longest given up; false when none waits.
    bool give_up_one() {
        const std::lock_guard lock(mutex_);
        if (waiting_.empty()) return false;
        waiting_.begin()->second();
        waiting_.erase(waiting_.begin());
        ++ending_;
        return true;
    }
    /// Connections that were given up and have not ended yet.
    std::size_t ending() const {
        const std::lock_guard lock(mutex_);
        return ending_;
    }

private:
    mutable std::mutex mutex_;
    std::uint64_t last_ = 0;
    std::size_t ending_ = 0;
    std::map<std::uint64_t, std::function<void()>> waiting_;
};

}  // namespace atelier::server
