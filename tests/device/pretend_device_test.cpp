#include "device/pretend_device.h"

#include <gtest/gtest.h>

#include "atelier/backends/torch/torch.h"
#include "atelier/core/error.h"
#include "atelier/inference/device.h"
#include "core/test_folder.h"

/// What the pretended accelerator sees, and what it does not allow.
namespace atelier::pretend {

namespace {

const at::Device first{at::kPrivateUse1, 0}, second{at::kPrivateUse1, 1};

std::string error_of(const std::function<void()>& work) {
    try {
        work();
    } catch (const c10::Error& error) {
        return error.what_without_backtrace();
    }
    return "";
}

}  // namespace

TEST(PretendDevice, computes_what_the_cpu_computes) {
    const Tensor x = at::arange(12, at::kFloat).view({1, 3, 2, 2}), weight = at::ones({2, 3, 1, 1});
    const Tensor moved = x.to(second).requires_grad_(true);
    const Tensor sum = at::conv2d(moved, weight.to(second)).square().sum();
    const Tensor gradient = torch::autograd::grad({sum}, {moved})[0];
    EXPECT_EQ(gradient.device(), second);
    EXPECT_TRUE(gradient.cpu().equal(2 * at::conv2d(x, weight).sum(1, true).expand_as(x)));
}

TEST(PretendDevice, does_not_mix_devices) {
    const Tensor here = at::ones({3}), there = at::ones({3}, first), other = at::ones({3}, second);
    const std::string why = "Expected all tensors to be on the same device";
    for (const Tensor& wrong : {here, other}) {
        EXPECT_NE(error_of([&] { there + wrong; }).find(why), std::string::npos);
        EXPECT_NE(error_of([&] { at::cat({there, wrong}); }).find(why), std::string::npos);
    }
    EXPECT_EQ(error_of([&] { there* at::ones({}); }), "") << "a scalar of the host is allowed";
    const Tensor indices = at::zeros({2}, at::kLong);
    EXPECT_EQ(error_of([&] { there.index({indices}); }), "") << "and so are indices";
}

TEST(PretendDevice, counts_operations_and_what_the_host_waits_for) {
    const Tensor host = at::ones({4});
    reset();
    const Tensor there = host.to(first);
    EXPECT_EQ(counts().waited(), 1) << "pageable memory";
    const Tensor pinned = host.pin_memory().to(first, /*non_blocking=*/true);
    EXPECT_EQ(counts().waited(), 1) << "pinned memory";
    EXPECT_EQ(counts().copies_to_device, 2);
    const Tensor sum = (there + pinned).sum();
    EXPECT_EQ(counts().waited(), 1);
    EXPECT_EQ(counts().launched(), 2) << counts().description();
    EXPECT_EQ(sum.item<float>(), 8);
    EXPECT_EQ(counts().waited(), 2);
    at::nonzero(there);
    there.index({there > 0});
    EXPECT_EQ(counts().waited(), 4);
    EXPECT_EQ(there.cpu().numel(), 4);
    EXPECT_EQ(counts().waited(), 5);
    EXPECT_EQ(counts().copies_to_host, 1);
}

TEST(PretendDevice, counts_bytes_and_runs_out_of_memory) {
    const std::int64_t before = bytes_held();
    reset();
    {
        const Tensor a = at::empty({1000}, first), b = at::empty({1}, second);
        EXPECT_EQ(bytes_held() - before, 4096 + 512);
    }
    EXPECT_EQ(bytes_held(), before);
    EXPECT_EQ(peak_bytes() - before, 4096 + 512);
    limit_memory(before + 1024);
    EXPECT_THROW(at::empty({1000}, first), c10::OutOfMemoryError);
    limit_memory(0);
    EXPECT_EQ(at::empty({1000}, first).numel(), 1000);
}

TEST(PretendDevice, is_a_device_of_the_program_where_it_is_registered) {
    EXPECT_EQ(inference::device_of("pretend"), at::Device(at::kPrivateUse1));
    EXPECT_EQ(inference::device_of("pretend:1"), second);
    EXPECT_FALSE(inference::has_device("pretend:2"));
    core::expect_contains(core::error_of([] { inference::device_of("pretend:2"); }),
                          "there are 2 of these devices");
    core::expect_contains(core::error_of([] { inference::named_device("pretend:x"); }),
                          "there is no device \"pretend:x\"");
}

}  // namespace atelier::pretend
