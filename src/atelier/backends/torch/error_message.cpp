#include "atelier/backends/torch/error_message.h"

#include <new>

#include "atelier/backends/torch/torch.h"

namespace atelier::backends {

namespace {

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

/// The line without the stack trace: the first one, or OpenVINO's last one, whose first line says
/// only where ("Exception from FILE:LINE:").
std::string informative_line(std::string text) {
    if (!text.starts_with("Exception from ")) return first_line(text);
    while (text.ends_with('\n')) text.pop_back();
    return "OpenVINO error: " + text.substr(text.rfind('\n') + 1);
}

}  // namespace

std::string error_message(const std::exception& error) {
    if (const auto* torch = dynamic_cast<const c10::Error*>(&error))
        return "LibTorch error: " + first_line(torch->what_without_backtrace());
    if (dynamic_cast<const std::bad_alloc*>(&error))
        return "out of memory; lower the batch or the count";
    return informative_line(error.what());
}

}  // namespace atelier::backends
