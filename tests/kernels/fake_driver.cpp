#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "atelier/kernels/gpu/host_launcher.h"
#include "kernels/fake_driver.h"

/// A stand-in for libcuda.so.1: one GPU of compute capability 9.0 whose memory is the host's and
/// whose kernels are the host's compilations. It checks what it is given as far as it can.
namespace atelier::kernels::gpu {

namespace {

FakeDriver state;

constexpr int invalid_value = 1, invalid_image = 200, invalid_context = 201, not_found = 500;

int result_of(const char* function, int otherwise = 0) {
    return state.failing == function ? 999 : otherwise;
}

struct Host : HostLauncher {
    using HostLauncher::launch_raw;
};

}  // namespace

extern "C" {

FakeDriver* fake_driver() { return &state; }

int cuInit(unsigned flags) { return result_of("cuInit", flags == 0 ? 0 : invalid_value); }

int cuDeviceGet(int* device, int number) {
    *device = 40 + number;
    return result_of("cuDeviceGet", number == 0 ? 0 : 101);
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
    const bool known = device == 40 && (attribute == 75 || attribute == 76);
    *value = attribute == 75 ? 9 : 0;
    return result_of("cuDeviceGetAttribute", known ? 0 : invalid_value);
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    *context = &state;
    return result_of("cuDevicePrimaryCtxRetain", device == 40 ? 0 : invalid_value);
}

int cuCtxPushCurrent_v2(void* context) {
    if (context != &state) return invalid_context;
    ++state.contexts;
    return result_of("cuCtxPushCurrent_v2");
}

int cuCtxPopCurrent_v2(void** context) {
    *context = &state;
    return state.contexts-- > 0 ? 0 : invalid_context;
}

int cuModuleLoadData(void** module, const void* image) {
    if (state.contexts == 0) return invalid_context;
    const std::string_view start(static_cast<const char*>(image), 4);
    *module = &state;
    return result_of("cuModuleLoadData", start == "\x7f"
                                                  "ELF"
                                             ? 0
                                             : invalid_image);
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (module != &state) return not_found;
    static std::vector<std::string*> names;
    names.push_back(new std::string(name));
    *function = names.back();
    return result_of("cuModuleGetFunction");
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   void* stream, void** arguments, void** extra) {
    if (state.contexts == 0) return invalid_context;
    if (block_y != 1 || block_z != 1 || shared_bytes != 0 || extra) return invalid_value;
    state.stream = stream;
    ++state.launches;
    Host().launch_raw(*static_cast<std::string*>(function), {grid_x, grid_y, grid_z}, block_x,
                      arguments[0]);
    return result_of("cuLaunchKernel");
}

int cuGetErrorName(int result, const char** text) {
    *text = result == 999 ? "CUDA_ERROR_UNKNOWN" : nullptr;
    return 0;
}
}

}  // namespace atelier::kernels::gpu
