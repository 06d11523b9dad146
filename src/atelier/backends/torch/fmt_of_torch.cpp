// LibTorch's include folder contains its own, newer copy of fmt's headers, which modules that use
// torch see instead of the system's. The system's library lacks that version's functions; this file
// compiles them. (Versions have namespaces of their own.)
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {
template auto thousands_sep_impl(locale_ref) -> thousands_sep_result<char>;
template auto decimal_point_impl(locale_ref) -> char;
}  // namespace detail
FMT_END_NAMESPACE
