#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "fuzz/targets.h"

// Under AddressSanitizer its hooks see every allocation, including those of libpng and zlib;
// without it, only those of C++ are counted.
namespace {

std::atomic<std::int64_t> held = 0, most_held = 0;

void add_held(std::int64_t bytes) {
    const std::int64_t now = held += bytes;
    if (now > most_held) most_held = now;
}

}  // namespace

#if defined(__SANITIZE_ADDRESS__)  // GCC
#define ATELIER_ADDRESS_SANITIZER
#elif defined(__has_feature)  // Clang
#if __has_feature(address_sanitizer)
#define ATELIER_ADDRESS_SANITIZER
#endif
#endif

#ifdef ATELIER_ADDRESS_SANITIZER

#include <sanitizer/allocator_interface.h>

namespace {

void count_allocation(const volatile void*, std::size_t bytes) {
    add_held(static_cast<std::int64_t>(bytes));
}
void count_release(const volatile void* place) {
    if (place == nullptr) return;
    add_held(
        -static_cast<std::int64_t>(__sanitizer_get_allocated_size(const_cast<const void*>(place))));
}

}  // namespace

namespace atelier::fuzz {

PeakMemory::PeakMemory() {
    static const int installed =
        __sanitizer_install_malloc_and_free_hooks(count_allocation, count_release);
    if (installed == 0) std::abort();
    held = most_held = 0;
}

}  // namespace atelier::fuzz

#else

void* operator new(std::size_t bytes) {
    void* place = std::malloc(bytes);
    if (place == nullptr) throw std::bad_alloc();
    add_held(static_cast<std::int64_t>(malloc_usable_size(place)));
    return place;
}

void operator delete(void* place) noexcept {
    if (place != nullptr) add_held(-static_cast<std::int64_t>(malloc_usable_size(place)));
    std::free(place);
}

void operator delete(void* place, std::size_t) noexcept { operator delete(place); }

namespace atelier::fuzz {

PeakMemory::PeakMemory() { held = most_held = 0; }

}  // namespace atelier::fuzz

#endif

namespace atelier::fuzz {

std::uint64_t PeakMemory::bytes() const { return static_cast<std::uint64_t>(most_held.load()); }

}  // namespace atelier::fuzz
