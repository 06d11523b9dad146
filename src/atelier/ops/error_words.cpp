#include "atelier/ops/error_words.h"

#include <new>

#include "atelier/ops/torch.h"

namespace atelier::ops {

namespace {

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

std::string words_of(const std::exception& error) {
    if (const auto* torch = dynamic_cast<const c10::Error*>(&error)) return "LibTorch refused: " + first_line(torch->what_without_backtrace());
    if (dynamic_cast<const std::bad_alloc*>(&error)) return "out of memory; lower the batch or the count";
    return first_line(error.what());
}

}  // namespace atelier::ops
