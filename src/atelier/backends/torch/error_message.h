#pragma once

#include <exception>
#include <string>

namespace atelier::backends {

/// A one-line message for `error`: LibTorch's and OpenVINO's messages go on with a stack trace, and
/// std::bad_alloc's says nothing.
std::string error_message(const std::exception& error);

}  // namespace atelier::backends
