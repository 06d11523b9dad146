#include "atelier/kernels/gpu/programs.h"

#include <array>

#include "atelier/core/error.h"
#include "atelier/kernels/gpu/adamw_kernels.h"
#include "atelier/kernels/gpu/group_norm_kernels.h"
#include "atelier/kernels/gpu/normal_kernels.h"

namespace atelier::kernels::gpu {

namespace {

#define ATELIER_KERNEL_NAME(name, ...) #name,

constexpr std::string_view group_norm_names[]{ATELIER_GROUP_NORM_KERNELS(ATELIER_KERNEL_NAME)};
constexpr std::string_view adamw_names[]{ATELIER_ADAMW_KERNELS(ATELIER_KERNEL_NAME)};
constexpr std::string_view normal_names[]{ATELIER_NORMAL_KERNELS(ATELIER_KERNEL_NAME)};

#undef ATELIER_KERNEL_NAME

SourceFile source_file(std::string_view name) {
    for (const SourceFile& file : source_files()) {
        if (file.name == name) return file;
    }
    core::fail("the program does not bring {}", name);
}

}  // namespace

std::span<const Program> programs() {
    static const std::array all{
        Program{source_file("atelier/kernels/gpu/group_norm_kernels.h"), group_norm_names, true},
        Program{source_file("atelier/kernels/gpu/adamw_kernels.h"), adamw_names, true},
        Program{source_file("atelier/kernels/gpu/normal_kernels.h"), normal_names, false},
    };
    return all;
}

}  // namespace atelier::kernels::gpu
