#pragma once

#include <exception>
#include <string>

namespace atelier::ops {

/// What people are told of an exception, on one line: LibTorch's and OpenVINO's go on with a trace, and memory that ran out says nothing.
std::string words_of(const std::exception& error);

}  // namespace atelier::ops
