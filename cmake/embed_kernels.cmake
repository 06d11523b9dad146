# Generates kernel_sources.cpp: the sources of GPU kernels as text, for kernels/gpu/programs.h.
set(embedded "")
foreach(name atelier/core/device_code.h atelier/core/normal_numbers.h
             atelier/kernels/gpu/kernel_code.h atelier/kernels/gpu/group_norm_kernels.h
             atelier/kernels/gpu/adamw_kernels.h atelier/kernels/gpu/normal_kernels.h)
  set(source ${PROJECT_SOURCE_DIR}/src/${name})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
  file(READ ${source} text)
  string(APPEND embedded "    {\"${name}\", R\"source(${text})source\"},\n")
endforeach()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/kernel_sources.cpp CONTENT [[#include "atelier/kernels/gpu/programs.h"

namespace atelier::kernels::gpu {

namespace {

constexpr SourceFile files[] = {
@embedded@};

}  // namespace

std::span<const SourceFile> source_files() { return files; }

}  // namespace atelier::kernels::gpu
]] @ONLY)
