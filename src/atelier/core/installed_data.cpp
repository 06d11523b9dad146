#include "atelier/core/installed_data.h"

#include <dlfcn.h>

namespace atelier::core {

namespace fs = std::filesystem;

fs::path own_file() {
    std::error_code ignored;
    Dl_info found{};
    // For a program the name is its argument 0, which may be relative to another folder.
    if (dladdr(reinterpret_cast<const void*>(&own_file), &found) != 0 && found.dli_fname &&
        fs::path(found.dli_fname).filename().string().find(".so") != std::string::npos)
        return fs::canonical(found.dli_fname, ignored);
    return fs::read_symlink("/proc/self/exe", ignored);
}

fs::path installed_data() {
    std::error_code ignored;
    const fs::path folder = own_file().parent_path().parent_path() / "share/atelier";
    return fs::is_directory(folder, ignored) ? folder : fs::path();
}

}  // namespace atelier::core
