#include "atelier/kernels/gpu/driver_launcher.h"

#include <dlfcn.h>

#include "atelier/core/error.h"
#include "atelier/kernels/gpu/loaded_library.h"

namespace atelier::kernels::gpu {

/// While alive, the device's context is this thread's: threads that have called nothing of CUDA
/// yet, such as autograd's, have none.
class DriverLauncher::InContext {
public:
    explicit InContext(const DriverLauncher& launcher) : launcher_(launcher) {
        launcher.check(launcher.call_.push(launcher.context_), "enter the device's context");
    }
    ~InContext() {
        void* context = nullptr;
        launcher_.call_.pop(&context);
    }
    InContext(const InContext&) = delete;
    InContext& operator=(const InContext&) = delete;

private:
    const DriverLauncher& launcher_;
};

void DriverLauncher::open(const std::filesystem::path& driver) {
    void* library = ::dlopen(driver.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char* reason = ::dlerror();
        core::fail("NVIDIA's driver cannot be loaded ({})", reason ? reason : driver.c_str());
    }
    const auto load = [library](const char* name, auto& function) {
        load_function(library, "NVIDIA's driver", name, function);
    };
    // Some have a second version under another name; the first ones are for 32 bits.
    load("cuInit", call_.init);
    load("cuDeviceGet", call_.device);
    load("cuDeviceGetAttribute", call_.attribute);
    load("cuDevicePrimaryCtxRetain", call_.retain);
    load("cuCtxPushCurrent_v2", call_.push);
    load("cuCtxPopCurrent_v2", call_.pop);
    load("cuModuleLoadData", call_.load_module);
    load("cuModuleGetFunction", call_.function);
    load("cuLaunchKernel", call_.launch);
    load("cuGetErrorName", call_.error);
}

void DriverLauncher::check(int result, std::string_view task) const {
    if (result == 0) return;
    const char* name = nullptr;
    call_.error(result, &name);
    core::fail("NVIDIA's driver cannot {}: {}", task,
               name ? std::string(name) : fmt::format("error {}", result));
}

int DriverLauncher::attribute(int which, int device) const {
    int value = 0;
    check(call_.attribute(&value, which, device), "describe the GPU");
    return value;
}

DriverLauncher::DriverLauncher(const Compiler& compiler, int device, std::function<void*()> stream,
                               const std::filesystem::path& driver)
    : stream_(std::move(stream)) {
    constexpr int capability_major = 75, capability_minor = 76;  // CU_DEVICE_ATTRIBUTE_...
    open(driver);
    check(call_.init(0), "start");
    int handle = 0;
    check(call_.device(&handle, device), fmt::format("find GPU {}", device));
    architecture_ = architecture_for(
        10 * attribute(capability_major, handle) + attribute(capability_minor, handle),
        compiler.architectures());
    check(call_.retain(&context_, handle), "open the device's context");
    const InContext inside(*this);
    for (const Program& program : programs()) {
        std::vector<char> code = compiler.compile(program, architecture_);
        code.push_back('\0');  // PTX is text
        void* module = nullptr;
        check(call_.load_module(&module, code.data()), fmt::format("load {}", program.source.name));
        for (const std::string_view kernel : program.kernels) {
            const std::string name(kernel);
            check(call_.function(&functions_[name], module, name.c_str()),
                  fmt::format("find {}", name));
        }
    }
}

void DriverLauncher::launch_raw(std::string_view kernel, Grid grid, unsigned threads,
                                const void* arguments) const {
    const auto found = functions_.find(kernel);
    if (found == functions_.end()) core::fail("there is no kernel {}", kernel);
    const InContext inside(*this);
    void* pointers[]{const_cast<void*>(arguments)};
    check(call_.launch(found->second, grid.x, grid.y, grid.z, threads, 1, 1, 0, stream_(), pointers,
                       nullptr),
          fmt::format("launch {}", kernel));
}

}  // namespace atelier::kernels::gpu
