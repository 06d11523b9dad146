#include <gtest/gtest.h>

#include "atelier/backends/torch/gpu_kernels.h"
#include "atelier/diffusion/device_normals.h"
#include "atelier/diffusion/noise_levels.h"
#include "atelier/kernels/gpu/host_launcher.h"
#include "device/pretend_device.h"

/// Noise that is drawn by a device's tensor operations, against the streams of the host.
namespace atelier::diffusion {

namespace {

std::int64_t differing_bits(const Tensor& a, const Tensor& b) {
    return a.cpu()
        .contiguous()
        .view(at::kInt)
        .ne(b.contiguous().view(at::kInt))
        .sum()
        .item<std::int64_t>();
}

}  // namespace

TEST(DeviceNormals, are_the_bits_of_the_streams_whatever_the_device) {
    const std::vector<core::RandomStream> streams{
        {7, "dm/2/fake/noise", 123456789012ULL}, {7, "dm/2/fake/added", 0}, {~0ULL, "", ~0ULL}};
    constexpr std::int64_t count = 1 << 18;
    for (const char* device : {"cpu", "pretend:1"}) {
        const Tensor found = device_normals(streams, 0, count, at::Device(device));
        EXPECT_EQ(found.device(), at::Device(device));
        for (std::size_t s = 0; s < streams.size(); ++s) {
            core::RandomStream stream = streams[s];
            EXPECT_EQ(
                differing_bits(found[static_cast<std::int64_t>(s)], normal_tensor(stream, {count})),
                0);
        }
    }
}

TEST(DeviceNormals, by_our_kernel_are_the_same_bits) {
    const std::vector<core::RandomStream> streams{{7, "dm/2/fake/noise", 123456789012ULL},
                                                  {7, "dm/2/fake/added", 0}};
    const at::Device device("pretend:1");
    const Tensor expected = device_normals(streams, 1001, 5000, device);
    const kernels::gpu::HostLauncher launcher;
    backends::set_gpu_kernels(device.type(), &launcher);
    pretend::reset();
    const Tensor found = device_normals(streams, 1001, 5000, device);
    backends::set_gpu_kernels(device.type(), nullptr);
    EXPECT_EQ(pretend::counts().launched(), 0) << "kernels are not LibTorch's operations";
    EXPECT_EQ(found.device(), device);
    EXPECT_EQ(differing_bits(found, expected.cpu()), 0);
}

TEST(DeviceNormals, are_any_numbers_of_a_stream_without_those_before) {
    const core::RandomStream stream(3, "noise", 5);
    core::RandomStream drawn = stream;
    const Tensor whole = normal_tensor(drawn, {7, 5, 3});
    for (const char* device : {"cpu", "pretend"}) {
        for (std::int64_t first = 0; first < 7; ++first) {
            for (std::int64_t count = 1; first + count <= 7; ++count) {
                const Tensor rows = normal_rows(std::span(&stream, 1), {{5, 3}}, first, count,
                                                at::Device(device))[0];
                EXPECT_EQ(differing_bits(rows, whole.narrow(0, first, count)), 0)
                    << device << " " << first << " " << count;
            }
        }
    }
    // Far from the beginning, where a block's number takes more than 24 bits.
    constexpr std::int64_t row = 1 << 20, far = 77;
    const auto there = [&](const char* device) {
        return normal_rows(std::span(&stream, 1), {{row}}, far, 1, at::Device(device))[0];
    };
    EXPECT_EQ(differing_bits(there("pretend"), there("cpu")), 0);
}

TEST(DeviceNormals, take_few_operations_and_no_wait) {
    const std::vector<core::RandomStream> streams{{1, "a"}, {1, "b"}, {1, "c"}};
    const at::Device device("pretend");
    device_normals(streams, 0, 4, device);  // copies its constants
    pretend::reset();
    device_normals(streams, 0, 1000, device);
    const pretend::Counts counts = pretend::counts();
    EXPECT_EQ(counts.waited(), 0) << counts.description();
    EXPECT_LE(counts.launched(), 170) << counts.description();
}

}  // namespace atelier::diffusion
