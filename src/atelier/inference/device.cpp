#include "atelier/inference/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <charconv>
#include <filesystem>

#include "atelier/core/error.h"

namespace atelier::inference {

namespace {

namespace fs = std::filesystem;

constexpr int most_devices = 64;  // LibTorch's own limit

/// What NVIDIA's driver says, asked without its headers: what is declared here has not changed since CUDA 1.
void ask_driver(CudaFacts& facts) {
    void* driver = ::dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) return;
    facts.driver = true;
    const auto init = reinterpret_cast<int (*)(unsigned)>(::dlsym(driver, "cuInit"));
    const auto count = reinterpret_cast<int (*)(int*)>(::dlsym(driver, "cuDeviceGetCount"));
    if (!init || !count) {
        facts.driver_refuses = "libcuda.so.1 has no cuInit";
        return;
    }
    constexpr int no_device = 100;
    int error = init(0);
    if (error == 0) error = count(&facts.devices);
    if (error != 0 && error != no_device) facts.driver_refuses = fmt::format("cuInit returns {}", error);
}

/// The folder that LibTorch was loaded from.
fs::path torch_folder() {
    Dl_info where{};
    if (::dladdr(reinterpret_cast<void*>(&at::globalContext), &where) == 0 || !where.dli_fname) return {};
    return fs::path(where.dli_fname).parent_path();
}

/// Loads LibTorch's CUDA part from beside its CPU part. NVIDIA's libraries are found by the paths that are written in it.
void load_torch_cuda(CudaFacts& facts) {
    const fs::path folder = torch_folder(), library = folder / "libtorch_cuda.so";
    std::error_code ignored;
    facts.built = fs::exists(library, ignored);
    if (!facts.built) return;
    if (facts.devices == 0) {  // half a gigabyte that would be of no use: one of its libraries stands for all
        const fs::path nvidia = folder.parent_path().parent_path() / "nvidia";
        if (!fs::exists(nvidia / "cudnn", ignored) && !::dlopen("libcudnn.so.9", RTLD_LAZY)) facts.not_loaded = "libcudnn.so.9 is not found";
    } else if (!::dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
        const char* why = ::dlerror();
        facts.not_loaded = why ? why : library.string();
    } else {
        facts.used = at::hasCUDA();
    }
}

const CudaFacts& cuda_here() {
    static const CudaFacts facts = [] {
        CudaFacts found;
        ask_driver(found);
        load_torch_cuda(found);
        return found;
    }();
    return facts;
}

}  // namespace

std::string why_no_cuda(const CudaFacts& facts, int index) {
    std::string why;
    const auto add = [&](const std::string& words) { why += (why.empty() ? "" : "; also, ") + words; };
    if (!facts.driver) add("NVIDIA's driver is missing (libcuda.so.1 is not found): install it, and in a container start that with its GPUs");
    else if (!facts.driver_refuses.empty()) add("NVIDIA's driver cannot be used (" + facts.driver_refuses + "): nvidia-smi says more");
    else if (facts.devices == 0) add("NVIDIA's driver sees no GPU: nvidia-smi lists those of this machine, CUDA_VISIBLE_DEVICES may hide them");
    if (!facts.built) {
        add("LibTorch is the build for CPUs alone (no libtorch_cuda.so beside it): install torch==2.13.0 from PyPI, with make build CUDA=1 or pip install '.[cuda]'");
    } else if (!facts.not_loaded.empty()) {
        add("libraries of NVIDIA that LibTorch needs are missing (" + facts.not_loaded + "): install them with make build CUDA=1 or pip install '.[cuda]'");
    }
    if (!why.empty()) return why;
    if (!facts.used) return "LibTorch cannot use NVIDIA's driver, which may be too old for it: nvidia-smi says which CUDA it is for";
    if (index >= facts.devices) {
        return facts.devices == 1 ? "there is one GPU here, cuda:0" : fmt::format("there are {} GPUs here, cuda:0 to cuda:{}", facts.devices, facts.devices - 1);
    }
    return "";
}

at::Device named_device(const std::string& name) {
    if (name == "cpu") return at::kCPU;
    if (name == "cuda") return at::kCUDA;
    constexpr std::string_view prefix = "cuda:";
    if (name.starts_with(prefix)) {
        int index = -1;
        const char* const end = name.data() + name.size();
        const auto [stopped, error] = std::from_chars(name.data() + prefix.size(), end, index);
        if (error == std::errc() && stopped == end && index >= 0 && index < most_devices) return {at::kCUDA, static_cast<at::DeviceIndex>(index)};
        throw core::UsageError(fmt::format("device \"{}\": behind cuda: goes the number of a GPU, 0 to {}", name, most_devices - 1));
    }
    if (name.starts_with("cpu:")) throw core::UsageError(fmt::format("device \"{}\": all cores are one device, cpu; threads say how many compute", name));
    throw core::UsageError(fmt::format("there is no device \"{}\"; known are cpu, cuda and cuda:N", name));
}

at::Device device_of(const std::string& name) {
    const at::Device device = named_device(name);
    if (!device.is_cuda()) return device;
    const std::string why = why_no_cuda(cuda_here(), device.has_index() ? device.index() : 0);
    if (!why.empty()) throw core::UsageError(fmt::format("device \"{}\": {}; or take cpu", name, why));
    return device;
}

bool has_device(const std::string& name) {
    const at::Device device = named_device(name);
    return !device.is_cuda() || why_no_cuda(cuda_here(), device.has_index() ? device.index() : 0).empty();
}

}  // namespace atelier::inference
