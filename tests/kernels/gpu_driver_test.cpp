#include <dlfcn.h>

#include "atelier/kernels/gpu/driver_launcher.h"
#include "atelier/kernels/gpu/normals.h"
#include "backends/tensors.h"
#include "kernels/fake_driver.h"
#include "kernels/nvrtc_here.h"

/// What the program says to NVIDIA's driver, with a stand-in for it.
namespace atelier::kernels::gpu {

using namespace backends;

namespace {

int the_stream = 0;

class GpuDriver : public testing::Test {
protected:
    void SetUp() override {
        if (!compiler_here()) GTEST_SKIP() << "NVRTC is not installed; scripts/setup.sh test does";
        void* library = ::dlopen(ATELIER_FAKE_DRIVER, RTLD_NOW | RTLD_LOCAL);
        ASSERT_NE(library, nullptr) << ::dlerror();
        driver_ = reinterpret_cast<FakeDriver* (*)()>(::dlsym(library, "fake_driver"))();
        *driver_ = {};
    }

    static DriverLauncher launcher(int device = 0) {
        return {*compiler_here(), device, [] { return static_cast<void*>(&the_stream); },
                ATELIER_FAKE_DRIVER};
    }

    FakeDriver* driver_ = nullptr;
};

}  // namespace

TEST_F(GpuDriver, runs_what_was_compiled_on_the_stream_that_is_asked_for) {
    const DriverLauncher launch = launcher();
    EXPECT_EQ(launch.architecture(), "sm_90");
    EXPECT_EQ(driver_->contexts, 0);
    std::vector<float> numbers(3000), expected(3000);
    fill_normal(launch, core::stream_key(7, "noise"), 1, 0, numbers.size(), numbers.data());
    core::RandomStream(7, "noise", 1).fill_normal(expected);
    EXPECT_EQ(numbers, expected);
    EXPECT_EQ(driver_->launches, 1);
    EXPECT_EQ(driver_->stream, &the_stream);
    EXPECT_EQ(driver_->contexts, 0);
    expect_contains(error_of([&] { launch.launch("no_such_kernel", {}, 1, 0); }), "no_such_kernel");
}

TEST_F(GpuDriver, says_which_call_fails) {
    const std::map<std::string, std::string> tasks{
        {"cuInit", "start"},
        {"cuDeviceGet", "find GPU 0"},
        {"cuDeviceGetAttribute", "describe the GPU"},
        {"cuDevicePrimaryCtxRetain", "open the device's context"},
        {"cuCtxPushCurrent_v2", "enter the device's context"},
        {"cuModuleLoadData", "load atelier/kernels/gpu/group_norm_kernels.h"},
        {"cuModuleGetFunction", "find group_norm_sums_float32_1"},
    };
    for (const auto& [function, task] : tasks) {
        driver_->failing = function;
        expect_contains(error_of([] { launcher(); }), task + ": CUDA_ERROR_UNKNOWN");
    }
    *driver_ = {};
    const DriverLauncher launch = launcher();
    driver_->failing = "cuLaunchKernel";
    float number = 0;
    expect_contains(
        error_of([&] { fill_normal(launch, core::stream_key(7, "noise"), 1, 0, 1, &number); }),
        "launch normal_numbers: CUDA_ERROR_UNKNOWN");
    EXPECT_EQ(driver_->contexts, 0);
    driver_->failing = "";
    expect_contains(error_of([] { launcher(1); }), "find GPU 1: error 101");
}

TEST_F(GpuDriver, says_why_a_driver_cannot_be_opened) {
    expect_contains(
        error_of([] { DriverLauncher(*compiler_here(), 0, [] { return nullptr; }, "/no/driver"); }),
        "/no/driver");
    expect_contains(
        error_of([] { DriverLauncher(*compiler_here(), 0, [] { return nullptr; }, "libm.so.6"); }),
        "cuInit");
}

}  // namespace atelier::kernels::gpu
