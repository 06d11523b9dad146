#pragma once

#include <filesystem>

namespace atelier::core {

/// The folder of data that was installed with this program or library, PREFIX/share/atelier; empty
/// where there is none, as in a build tree.
std::filesystem::path installed_data();

/// The file that this code was loaded from: libatelier.so, the Python module, or the program.
std::filesystem::path own_file();

}  // namespace atelier::core
