#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace atelier::kernels {

/// Scratch memory of the inner loops, uninitialised. Aligned to a cache line, since a vector load
/// across two lines takes twice as long.
class Workspace {
public:
    /// Returns at least `count` floats, valid until the next call.
    float* reserve(std::size_t count) {
        constexpr std::uintptr_t line = 64;
        const std::size_t needed = count + line / sizeof(float);
        if (memory_.size() < needed) memory_.resize(needed);
        const auto begin = reinterpret_cast<std::uintptr_t>(memory_.data());
        return reinterpret_cast<float*>((begin + line - 1) / line * line);
    }

private:
    std::vector<float> memory_;
};

/// A workspace that belongs to this thread: for loops whose calls on one thread do not nest.
inline float* thread_workspace(std::size_t count) {
    thread_local Workspace workspace;
    return workspace.reserve(count);
}

}  // namespace atelier::kernels
