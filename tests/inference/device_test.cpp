#include "atelier/inference/device.h"

#include <gtest/gtest.h>

#include "atelier/core/error.h"

namespace atelier::inference {
namespace {

std::string error_for(const std::string& name) {
    try {
        named_device(name);
        return "";
    } catch (const core::UsageError& error) {
        return error.what();
    }
}

bool contains(const std::string& text, const std::string& fragment) {
    return text.find(fragment) != std::string::npos;
}

TEST(Device, IsTheCpuOrANumberedGpu) {
    EXPECT_EQ(named_device("cpu"), at::Device(at::kCPU));
    EXPECT_EQ(named_device("cuda"), at::Device(at::kCUDA));
    EXPECT_EQ(named_device("cuda:0"), at::Device(at::kCUDA, 0));
    EXPECT_EQ(named_device("cuda:11"), at::Device(at::kCUDA, 11));
}

TEST(Device, OfAnotherKindOrNumberIsRejectedNamingTheKnownOnes) {
    for (const char* name :
         {"tpu", "gpu", "", "CPU", "mps", "meta", "cud", "cuda ", " cpu", "xpu:0"})
        EXPECT_TRUE(contains(error_for(name), "known are cpu, cuda and cuda:N")) << name;
    for (const char* name : {"cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda: 1", "cuda:1:2",
                             "cuda:+1", "cuda:64", "cuda:300", "cuda:99999999999999999999"}) {
        EXPECT_TRUE(contains(error_for(name), "the number of a GPU")) << name;
    }
    for (const char* name : {"cpu:0", "cpu:3", "cpu:"})
        EXPECT_TRUE(contains(error_for(name), "all cores are one device")) << name;
}

TEST(Device, OfCudaSaysWhatIsMissing) {
    const CudaFacts good{.built = true,
                         .load_error = "",
                         .driver = true,
                         .driver_error = "",
                         .devices = 2,
                         .usable = true};
    EXPECT_EQ(cuda_problem(good, 0), "");
    EXPECT_EQ(cuda_problem(good, 1), "");
    EXPECT_EQ(cuda_problem(good, 2), "there are 2 GPUs here, cuda:0 to cuda:1");

    CudaFacts facts = good;
    facts.built = facts.usable = false;
    EXPECT_TRUE(contains(cuda_problem(facts, 0), "LibTorch is the CPU-only build")) << "the build";
    EXPECT_FALSE(contains(cuda_problem(facts, 0), "driver"));

    facts = good;
    facts.driver = facts.usable = false;
    facts.devices = 0;
    EXPECT_TRUE(contains(cuda_problem(facts, 0), "NVIDIA's driver is missing")) << "the driver";
    EXPECT_FALSE(contains(cuda_problem(facts, 0), "LibTorch"));

    facts.built = false;
    EXPECT_TRUE(contains(cuda_problem(facts, 0), "driver is missing") &&
                contains(cuda_problem(facts, 0), "CPU-only build"))
        << "both";

    facts = good;
    facts.devices = 0;
    EXPECT_TRUE(contains(cuda_problem(facts, 0), "sees no GPU"));

    facts = good;
    facts.load_error = "libcudnn.so.9: cannot open shared object file";
    facts.usable = false;
    EXPECT_TRUE(contains(cuda_problem(facts, 0), "libcudnn.so.9") &&
                contains(cuda_problem(facts, 0), "make build CUDA=1"));

    facts = good;
    facts.usable = false;
    EXPECT_TRUE(contains(cuda_problem(facts, 0), "too old"));

    facts = good;
    facts.driver_error = "cuInit returns 999";
    facts.devices = 0;
    facts.usable = false;
    EXPECT_TRUE(contains(cuda_problem(facts, 0), "cuInit returns 999"));
}

TEST(Device, ThatDoesNotExistIsRejectedOnUse) {
    EXPECT_EQ(device_of("cpu"), at::Device(at::kCPU));
    if (has_device("cuda")) GTEST_SKIP() << "there is a GPU here";
    try {
        device_of("cuda:1");
        FAIL() << "there is no GPU here";
    } catch (const core::UsageError& error) {
        EXPECT_TRUE(contains(error.what(), "device \"cuda:1\": ") &&
                    contains(error.what(), "; or use cpu"))
            << error.what();
    }
}

TEST(DeviceOfProcess, deals_the_gpus_out_in_turn_where_any_will_do) {
    EXPECT_EQ(device_of_process("cuda", 0, 4), "cuda:0");
    EXPECT_EQ(device_of_process("cuda", 3, 4), "cuda:3");
    EXPECT_EQ(device_of_process("cuda", 5, 4), "cuda:1");
    EXPECT_EQ(device_of_process("cuda", 1, 1), "cuda");
    EXPECT_EQ(device_of_process("cuda", 1, 0), "cuda");
    EXPECT_EQ(device_of_process("cuda:2", 1, 4), "cuda:2");
    EXPECT_EQ(device_of_process("cpu", 1, 4), "cpu");
}

}  // namespace
}  // namespace atelier::inference
