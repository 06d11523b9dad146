#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace atelier::ops {

/// Room for at least so many numbers, which this thread keeps: for the inner loops, whose calls on one thread do not nest. Any content; begins with a line of the cache, since a vector that lies
/// across two takes twice as long.
inline float* thread_room(std::size_t numbers) {
    constexpr std::uintptr_t line = 64;
    thread_local std::vector<float> room;
    const std::size_t needed = numbers + line / sizeof(float);
    if (room.size() < needed) room.resize(needed);
    const auto begin = reinterpret_cast<std::uintptr_t>(room.data());
    return reinterpret_cast<float*>((begin + line - 1) / line * line);
}

}  // namespace atelier::ops
