#pragma once

// LibTorch's wheel has ProcessGroupGloo.hpp but none of Gloo's own headers. These files declare the
// names that it mentions; nothing of Gloo is called through them.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
public:
    void setTimeout(std::chrono::milliseconds);
};

}  // namespace gloo
