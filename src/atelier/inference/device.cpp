#include "atelier/inference/device.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "atelier/backends/torch/libraries.h"
#include "atelier/core/error.h"
#include "atelier/core/log.h"
#include "atelier/core/whole_number.h"

namespace atelier::inference {

namespace {

namespace fs = std::filesystem;

constexpr int max_devices = 64;  // LibTorch's own limit

/// Queries NVIDIA's driver without its headers: the functions declared here have not changed since
/// CUDA 1.
void query_driver(CudaFacts& facts) {
    void* driver = ::dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) return;
    facts.driver = true;
    const auto init = reinterpret_cast<int (*)(unsigned)>(::dlsym(driver, "cuInit"));
    const auto count = reinterpret_cast<int (*)(int*)>(::dlsym(driver, "cuDeviceGetCount"));
    if (!init || !count) {
        facts.driver_error = "libcuda.so.1 has no cuInit";
        return;
    }
    constexpr int no_device = 100;
    int error = init(0);
    if (error == 0) error = count(&facts.devices);
    if (error != 0 && error != no_device)
        facts.driver_error = fmt::format("cuInit returns {}", error);
}

/// Loads LibTorch's CUDA library from the folder of its CPU library. It finds NVIDIA's libraries by
/// its own RPATH.
void load_torch_cuda(CudaFacts& facts) {
    const fs::path folder = backends::torch_library_folder(), library = folder / "libtorch_cuda.so";
    std::error_code ignored;
    facts.built = fs::exists(library, ignored);
    if (!facts.built) return;
    if (facts.devices == 0) {
        // Without a GPU half a gigabyte need not be loaded: check for one of its libraries only.
        const fs::path nvidia = folder.parent_path().parent_path() / "nvidia";
        if (!fs::exists(nvidia / "cudnn", ignored) && !::dlopen("libcudnn.so.9", RTLD_LAZY))
            facts.load_error = "libcudnn.so.9 is not found";
    } else if (!::dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
        const char* why = ::dlerror();
        facts.load_error = why ? why : library.string();
    } else {
        facts.usable = at::hasCUDA();
        if (!facts.usable) return;
        const auto graphs = backends::open_cuda_module("libatelier_cuda_graph.so");
        if (graphs.handle == nullptr)
            core::log::info(
                "evaluations are not recorded as CUDA graphs, each operation is "
                "launched by itself: {}",
                graphs.problem);
    }
}

const CudaFacts& cuda_here() {
    static const CudaFacts facts = [] {
        CudaFacts state;
        query_driver(state);
        load_torch_cuda(state);
        return state;
    }();
    return facts;
}

}  // namespace

std::string cuda_problem(const CudaFacts& facts, int index) {
    std::string why;
    const auto add = [&](const std::string& reason) {
        why += (why.empty() ? "" : "; also, ") + reason;
    };
    if (!facts.driver)
        add("NVIDIA's driver is missing (libcuda.so.1 is not found): install it, and start "
            "containers with access to the GPUs");
    else if (!facts.driver_error.empty())
        add("NVIDIA's driver cannot be used (" + facts.driver_error + "): nvidia-smi says more");
    else if (facts.devices == 0)
        add("NVIDIA's driver sees no GPU: nvidia-smi lists those of this machine, "
            "CUDA_VISIBLE_DEVICES may hide them");
    if (!facts.built) {
        add("LibTorch is the CPU-only build (no libtorch_cuda.so beside it): install "
            "torch==2.13.0 from PyPI, with make build CUDA=1 or pip install '.[cuda]'");
    } else if (!facts.load_error.empty()) {
        add("NVIDIA libraries that LibTorch needs are missing (" + facts.load_error +
            "): install them with make build CUDA=1 or pip install '.[cuda]'");
    }
    if (!why.empty()) return why;
    if (!facts.usable)
        return "LibTorch cannot use NVIDIA's driver, which may be too old for it: nvidia-smi says "
               "which CUDA it is for";
    if (index >= facts.devices) {
        return facts.devices == 1 ? "there is one GPU here, cuda:0"
                                  : fmt::format("there are {} GPUs here, cuda:0 to cuda:{}",
                                                facts.devices, facts.devices - 1);
    }
    return "";
}

namespace {

/// The device of type `type` that is named `kind` or "`kind`:N"; none where `name` is another.
std::optional<at::Device> device_called(const std::string& name, const std::string& kind,
                                        at::DeviceType type) {
    if (name == kind) return at::Device(type);
    if (!name.starts_with(kind + ":")) return std::nullopt;
    const auto index = core::whole_number(std::string_view(name).substr(kind.size() + 1));
    if (index && *index >= 0 && *index < max_devices)
        return at::Device(type, static_cast<at::DeviceIndex>(*index));
    return std::nullopt;
}

/// A device of the backend that a library has registered with LibTorch, if any: so do vendors of
/// other accelerators, and the tests.
std::optional<at::Device> registered_device(const std::string& name) {
    if (!c10::is_privateuse1_backend_registered()) return std::nullopt;
    return device_called(name, c10::get_privateuse1_backend(), at::kPrivateUse1);
}

/// Why a device other than the CPU cannot be used; empty when it can be.
std::string problem_of(const at::Device& device) {
    const int index = device.has_index() ? device.index() : 0;
    if (device.is_cuda()) return cuda_problem(cuda_here(), index);
    const int count = c10::impl::VirtualGuardImpl(device.type()).deviceCount();
    return index < count ? "" : fmt::format("there are {} of these devices", count);
}

}  // namespace

at::Device named_device(const std::string& name) {
    if (name == "cpu") return at::kCPU;
    if (const auto cuda = device_called(name, "cuda", at::kCUDA)) return *cuda;
    if (name.starts_with("cuda:"))
        throw core::UsageError(
            fmt::format("device \"{}\": cuda: must be followed by the number of a GPU, 0 to {}",
                        name, max_devices - 1));
    if (const auto registered = registered_device(name)) return *registered;
    if (name.starts_with("cpu:"))
        throw core::UsageError(fmt::format(
            "device \"{}\": all cores are one device, cpu; threads sets how many are used", name));
    throw core::UsageError(
        fmt::format("there is no device \"{}\"; known are cpu, cuda and cuda:N", name));
}

at::Device device_of(const std::string& name) {
    const at::Device device = named_device(name);
    if (device.is_cpu()) return device;
    const std::string why = problem_of(device);
    if (!why.empty())
        throw core::UsageError(fmt::format("device \"{}\": {}; or use cpu", name, why));
    return device;
}

double memory_of(const std::string& name) {
    const at::Device device = device_of(name);
    if (device.is_cpu()) return 0;
    auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
    if (!allocator) return 0;
    const auto index = device.has_index() ? device.index() : c10::DeviceIndex{0};
    return static_cast<double>(allocator->getMemoryInfo(index).second);
}

int usable_gpus() { return cuda_problem(cuda_here(), 0).empty() ? cuda_here().devices : 0; }

std::string device_of_process(const std::string& name, std::int64_t number, int gpus) {
    return name == "cuda" && gpus > 1 ? fmt::format("cuda:{}", number % gpus) : name;
}

bool has_device(const std::string& name) {
    const at::Device device = named_device(name);
    return device.is_cpu() || problem_of(device).empty();
}

}  // namespace atelier::inference
