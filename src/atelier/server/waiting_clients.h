#pragma once

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
    /// A connection's place among those that wait, until it is destroyed.
    class Place {
    public:
        Place(WaitingClients& all, std::function<void()> give_up) : all_(all), number_(all.enter(std::move(give_up))) {}
        ~Place() { all_.leave(number_); }
        Place(const Place&) = delete;
        Place& operator=(const Place&) = delete;

    private:
        WaitingClients& all_;
        const std::uint64_t number_;
    };

    /// Has the one that has waited longest given up; false when none waits.
    bool give_up_one() {
        const std::lock_guard lock(mutex_);
        if (waiting_.empty()) return false;
        waiting_.begin()->second();
        waiting_.erase(waiting_.begin());
        return true;
    }

private:
    std::uint64_t enter(std::function<void()> give_up) {
        const std::lock_guard lock(mutex_);
        waiting_.emplace(++last_, std::move(give_up));
        return last_;
    }
    void leave(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        waiting_.erase(number);
    }

    std::mutex mutex_;
    std::uint64_t last_ = 0;
    std::map<std::uint64_t, std::function<void()>> waiting_;
};

}  // namespace atelier::server
