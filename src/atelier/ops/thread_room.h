#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace atelier::ops {

/// Room for the inner loops, of any content. It begins with a line of the cache, since a vector that lies across two takes twice as long.
class Scratch {
public:
    /// Room for at least so many numbers, until the next call.
    float* room(std::size_t numbers) {
        constexpr std::uintptr_t line = 64;
        const std::size_t needed = numbers + line / sizeof(float);
        if (memory_.size() < needed) memory_.resize(needed);
        const auto begin = reinterpret_cast<std::uintptr_t>(memory_.data());
        return reinterpret_cast<float*>((begin + line - 1) / line * line);
    }

private:
    std::vector<float> memory_;
};

/// Room that this thread keeps: for loops whose calls on one thread do not nest.
inline float* thread_room(std::size_t numbers) {
    thread_local Scratch scratch;
    return scratch.room(numbers);
}

}  // namespace atelier::ops
