#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace atelier::core {

/// Waits until `what` holds; false if it does not within `limit`, which is for busy machines.
inline bool soon(const std::function<bool()>& what,
                 std::chrono::milliseconds limit = std::chrono::seconds(60)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!what()) {
        if (std::chrono::steady_clock::now() >= end) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
}

}  // namespace atelier::core
