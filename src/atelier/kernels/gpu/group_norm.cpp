#include "atelier/kernels/gpu/group_norm.h"

#include <algorithm>
#include <limits>
#include <string>

namespace atelier::kernels::gpu {

namespace {

constexpr std::int64_t chunk_elements = 16384;  // 64 iterations of one thread, 8 of its packs
constexpr std::int64_t max_blocks_along_y = 65535;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

/// How many elements can be read together: 16 bytes' worth, or one.
int width_of(ElementType type, const GroupNormArguments& a) {
    const int width = type == ElementType::float32 ? 4 : 8;
    return a.channels % width == 0 && aligned(a.x) && aligned(a.y) && aligned(a.dy) ? width : 1;
}

std::string of_type(const char* kernel, ElementType type) {
    return std::string(kernel) + (type == ElementType::float32 ? "_float32" : "_bfloat16");
}

void launch_walk(const Launcher& launcher, const char* kernel, ElementType type, int width,
                 const GroupNormArguments& a) {
    constexpr int threads = GroupNormSums<float, 1>::threads;
    const Grid grid{static_cast<unsigned>(a.chunks), static_cast<unsigned>(a.samples),
                    static_cast<unsigned>(ceil_div(a.channels / width, threads))};
    launcher.launch(of_type(kernel, type) + "_" + std::to_string(width), grid, threads, a);
}

void launch_for_groups(const Launcher& launcher, const std::string& kernel,
                       const GroupNormArguments& a) {
    constexpr int groups = GroupSums::threads / GroupSums::parts;
    const Grid grid{static_cast<unsigned>(ceil_div(a.groups, groups)),
                    static_cast<unsigned>(a.samples)};
    launcher.launch(kernel, grid, GroupSums::threads, a);
}

}  // namespace

bool can_group_norm(const GroupNormSizes& s) {
    constexpr std::int64_t most = std::numeric_limits<int>::max() / 2;
    if (std::min({s.samples, s.positions, s.channels, s.groups}) < 1) return false;
    return s.channels % s.groups == 0 && s.samples <= max_blocks_along_y && s.positions <= most &&
           s.channels <= most / std::max(s.positions, chunk_elements);
}

GroupNormArguments group_norm_arguments(const GroupNormSizes& sizes, float eps, bool silu) {
    GroupNormArguments a{};
    a.samples = static_cast<int>(sizes.samples);
    a.positions = static_cast<int>(sizes.positions);
    a.channels = static_cast<int>(sizes.channels);
    a.groups = static_cast<int>(sizes.groups);
    a.chunk_positions = static_cast<int>(ceil_div(chunk_elements, sizes.channels));
    a.chunks = static_cast<int>(ceil_div(sizes.positions, a.chunk_positions));
    a.eps = eps;
    a.silu = silu ? 1 : 0;
    return a;
}

std::int64_t group_norm_partial_size(const GroupNormArguments& a) {
    return std::int64_t{2} * a.samples * a.chunks * a.channels;
}

void group_norm_forward(const Launcher& launcher, ElementType type, const GroupNormArguments& a) {
    const int width = width_of(type, a);
    launch_walk(launcher, "group_norm_sums", type, width, a);
    launch_for_groups(launcher, of_type("group_norm_statistics", type), a);
    launch_walk(launcher, "group_norm_apply", type, width, a);
}

void group_norm_backward(const Launcher& launcher, ElementType type, const GroupNormArguments& a) {
    const int width = width_of(type, a);
    launch_walk(launcher, "group_norm_backward_sums", type, width, a);
    launch_for_groups(launcher, "group_norm_backward_terms", a);
    launch_walk(launcher, "group_norm_backward_apply", type, width, a);
    if (!a.dweight && !a.dbias) return;
    constexpr int columns = GroupNormParameterGradients::columns;
    launcher.launch("group_norm_parameter_gradients",
                    {static_cast<unsigned>(ceil_div(a.channels, columns))},
                    GroupNormParameterGradients::threads, a);
}

}  // namespace atelier::kernels::gpu
