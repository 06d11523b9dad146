#pragma once

#include <cstddef>
#include <vector>

namespace atelier::ops {

/// Room for at least so many numbers, which this thread keeps: for the inner loops, whose calls on one thread do not nest. Any content.
inline float* thread_room(std::size_t numbers) {
    thread_local std::vector<float> room;
    if (room.size() < numbers) room.resize(numbers);
    return room.data();
}

}  // namespace atelier::ops
