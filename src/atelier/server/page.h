#pragma once

#include <span>
#include <string_view>

namespace atelier::server {

/// A file of web/, embedded in the executable.
struct PageFile {
    std::string_view path, content_type, bytes, hash;
};

std::span<const PageFile> page_files();

}  // namespace atelier::server
