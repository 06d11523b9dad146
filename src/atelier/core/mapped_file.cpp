#include "atelier/core/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "atelier/core/error.h"
#include "atelier/core/regular_file.h"

namespace atelier::core {

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
    const RegularFile file(path_);
    const auto size = static_cast<std::size_t>(file.size());
    if (size == 0) return;
    void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
    if (start == MAP_FAILED)
        fail("{}: cannot be mapped into memory ({})", path_.string(), std::strerror(errno));
    bytes_ = {static_cast<const std::byte*>(start), size};
}

MappedFile::~MappedFile() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::release_pages() const {
    ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

}  // namespace atelier::core
