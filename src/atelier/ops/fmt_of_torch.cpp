// LibTorch's include folder carries its own, newer copy of fmt's headers, which the torch rooms see instead of the system's. The
// system's library does not hold that version's functions; this file compiles them. (Versions live in namespaces of their own.)
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {
template auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template auto decimal_point_impl(locale_ref) -> char;
}  // namespace detail
FMT_END_NAMESPACE
