#include "atelier/backends/torch/gpu_kernels.h"

#include "atelier/backends/torch/fused_norm.h"
#include "atelier/backends/torch/gpu_norm.h"
#include "atelier/kernels/gpu/host_launcher.h"
#include "backends/tensors.h"

/// What uses the kernels for GPUs, with kernels that run on the host.
namespace atelier::backends {

namespace {

namespace gpu = kernels::gpu;

const gpu::HostLauncher host;

std::vector<Tensor> norm_leaves(at::ScalarType type, at::ScalarType modulation_type) {
    std::vector<Tensor> leaves{(normal({3, 24, 5, 7}, "x") * 2 + 0.5).to(type),
                               normal({24}, "weight") + 1, normal({24}, "bias"),
                               normal({3, 48}, "modulation").to(modulation_type)};
    for (Tensor& leaf : leaves) leaf.requires_grad_();
    return leaves;
}

Tensor on_host(const std::vector<Tensor>& in, bool modulated = true, bool silu = true) {
    return gpu_group_norm(host, in[0], in[1], in[2], modulated ? in[3] : Tensor(), 6, 1e-5, silu);
}

Tensor on_cpu(const std::vector<Tensor>& in, bool modulated = true, bool silu = true) {
    return fused_group_norm(in[0], in[1], in[2], modulated ? in[3] : Tensor(), 6, 1e-5, silu);
}

/// Runs all kernels but those whose names contain `broken`.
class BrokenLauncher : public gpu::HostLauncher {
public:
    explicit BrokenLauncher(std::string broken) : broken_(std::move(broken)) {}

protected:
    void launch_raw(std::string_view kernel, gpu::Grid grid, unsigned threads,
                    const void* arguments) const override {
        if (kernel.find(broken_) == kernel.npos)
            HostLauncher::launch_raw(kernel, grid, threads, arguments);
    }

private:
    std::string broken_;
};

GpuAdamW small_update() {
    const auto scalar = [](float value) { return at::full({}, value, at::kFloat); };
    GpuAdamW update{0.9, 0.99, 0.01,   1e-8,      {},           {},        {},       {},
                    {},  {{}}, {0.25}, scalar(7), scalar(0.1F), scalar(4), scalar(0)};
    for (const std::int64_t width : {1, 6}) {
        const auto part = [&](const char* name) {
            return normal({4, width, 3, 3}, name).contiguous(at::MemoryFormat::ChannelsLast);
        };
        update.parameters.push_back(part("parameter"));
        update.gradients.push_back(part("gradient"));
        update.first_moments.push_back(part("first"));
        update.second_moments.push_back(part("second").square());
        update.averages[0].push_back(part("average"));
        update.copies.push_back(at::empty_like(part("copy"), at::kBFloat16));
    }
    return update;
}

}  // namespace

TEST(GpuNorm, values_and_gradients_are_those_of_the_cpu) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        for (const at::ScalarType modulation : {at::kFloat, at::kBFloat16, at::kDouble}) {
            for (const bool modulated : {false, true}) {
                for (const bool silu : {false, true}) {
                    std::vector<Tensor> in = norm_leaves(type, modulation);
                    if (!modulated) in.pop_back();
                    const Tensor dy = normal({3, 24, 5, 7}, "dy");
                    const Tensor ours = on_host(in, modulated, silu),
                                 theirs = on_cpu(in, modulated, silu);
                    const double tolerance = type == at::kFloat ? 1e-5 : 1e-2;
                    EXPECT_EQ(ours.scalar_type(), type);
                    EXPECT_TRUE(ours.is_contiguous(at::MemoryFormat::ChannelsLast));
                    EXPECT_LT(relative_distance(ours, theirs), tolerance);
                    const auto gradients = gradients_of((ours * dy).sum(), in),
                               expected = gradients_of((theirs * dy).sum(), in);
                    for (std::size_t i = 0; i < in.size(); ++i) {
                        EXPECT_EQ(gradients[i].scalar_type(), in[i].scalar_type());
                        EXPECT_LT(relative_distance(gradients[i], expected[i]), tolerance) << i;
                    }
                }
            }
        }
    }
}

TEST(GpuNorm, only_what_needs_a_gradient_gets_one) {
    std::vector<Tensor> in = norm_leaves(at::kFloat, at::kFloat);
    for (const std::size_t frozen : {1, 2}) in[frozen] = in[frozen].detach();
    const auto gradients = gradients_of(on_host(in).square().sum(), {in[0], in[3]}),
               expected = gradients_of(on_cpu(in).square().sum(), {in[0], in[3]});
    for (std::size_t i = 0; i < gradients.size(); ++i)
        EXPECT_LT(relative_distance(gradients[i], expected[i]), 1e-5);
    const at::NoGradGuard none;
    EXPECT_FALSE(on_host(in).requires_grad());
}

TEST(GpuNorm, any_layout_of_its_inputs_gives_the_same_bits) {
    std::vector<Tensor> in = norm_leaves(at::kFloat, at::kFloat);
    const Tensor expected = on_host(in);
    in[0] = in[0].detach().contiguous(at::MemoryFormat::ChannelsLast);
    in[3] = in[3].detach().t().contiguous().t();
    EXPECT_TRUE(on_host(in).equal(expected));
}

TEST(GpuNorm, second_order_gradients_are_refused) {
    const std::vector<Tensor> in = norm_leaves(at::kFloat, at::kFloat);
    const Tensor y = on_host(in).square().sum();
    expect_contains(error_of([&] { gradients_of(y, {in[0]}, /*twice=*/true); }),
                    "DoubleBackwardGuard");
}

TEST(GpuNorm, knows_what_it_takes) {
    const Tensor x = at::zeros({2, 12, 3, 3}), weight = at::ones({12});
    EXPECT_TRUE(can_gpu_group_norm(x, weight, weight, 3));
    EXPECT_TRUE(can_gpu_group_norm(x.to(at::kBFloat16), weight, weight, 3));
    EXPECT_FALSE(can_gpu_group_norm(x.to(at::kHalf), weight, weight, 3));
    EXPECT_FALSE(can_gpu_group_norm(x, weight.to(at::kBFloat16), weight, 3));
    EXPECT_FALSE(can_gpu_group_norm(x, weight, weight, 5));
    EXPECT_FALSE(can_gpu_group_norm(x.view({2, 12, 9}), weight, weight, 3));
    EXPECT_FALSE(can_gpu_group_norm(x.narrow(0, 0, 0), weight, weight, 3));
}

TEST(GpuKernels, that_are_right_pass_their_check) {
    EXPECT_EQ(gpu_kernel_disagreement(host, at::kCPU), "");
}

TEST(GpuKernels, a_check_finds_each_that_does_nothing) {
    const std::map<std::string, std::string> broken{
        {"group_norm_sums_float32_1", "7 channels in Float, forward"},
        {"group_norm_sums_float32_4", "96 channels in Float, forward"},
        {"group_norm_sums_bfloat16_1", "7 channels in BFloat16, forward"},
        {"group_norm_sums_bfloat16_8", "96 channels in BFloat16, forward"},
        {"group_norm_apply_float32_4", "forward"},
        {"group_norm_statistics_bfloat16", "BFloat16, forward"},
        {"group_norm_backward_sums_bfloat16_8", "gradient of input 0"},
        {"group_norm_backward_terms", "gradient of input 0"},
        {"group_norm_backward_apply_bfloat16_1", "gradient of input 0"},
        {"group_norm_parameter_gradients", "gradient of input 1"},
        {"adamw_update", "AdamW"},
        {"normal_numbers", "normal numbers"},
    };
    for (const auto& [kernel, expected] : broken)
        expect_contains(gpu_kernel_disagreement(BrokenLauncher(kernel), at::kCPU), expected);
}

TEST(GpuKernels, are_not_for_cpus) {
    EXPECT_EQ(gpu_kernels(at::kCPU), nullptr);
    EXPECT_TRUE(normalises_channels_last(at::zeros({1})));
}

TEST(GpuAdamW, updates_tensors_of_any_dense_layout) {
    const GpuAdamW ours = small_update(), theirs = small_update();
    gpu_adamw(host, ours);
    for (std::size_t i = 0; i < ours.parameters.size(); ++i) {
        at::_fused_adamw_({theirs.parameters[i]}, {theirs.gradients[i] / 4},
                          {theirs.first_moments[i]}, {theirs.second_moments[i]}, {}, {theirs.step},
                          0.1, 0.9, 0.99, 0.01, 1e-8, false, false, std::nullopt, std::nullopt);
        theirs.averages[0][i].lerp_(theirs.parameters[i], 0.75);
        EXPECT_LT(relative_distance(ours.parameters[i], theirs.parameters[i]), 1e-6);
        EXPECT_LT(relative_distance(ours.averages[0][i], theirs.averages[0][i]), 1e-6);
        EXPECT_TRUE(ours.copies[i].equal(ours.parameters[i].to(at::kBFloat16)));
    }
}

TEST(GpuAdamW, tells_what_does_not_fit) {
    GpuAdamW update = small_update();
    update.gradients[1] = update.gradients[1].contiguous();
    expect_contains(error_of([&] { gpu_adamw(host, update); }), "a gradient must have type Float");
    update = small_update();
    update.copies[0] = update.parameters[0];
    expect_contains(error_of([&] { gpu_adamw(host, update); }), "a copy must have type BFloat16");
    update = small_update();
    update.step = at::tensor(7);
    expect_contains(error_of([&] { gpu_adamw(host, update); }), "the step must be one float32");
}

TEST(GpuNormals, are_a_range_of_a_stream) {
    Tensor expected = at::empty({5000});
    core::RandomStream(3, "noise", 9)
        .fill_normal(
            {expected.mutable_data_ptr<float>(), static_cast<std::size_t>(expected.numel())});
    const std::vector<core::RandomStream> streams{{3, "others", 9}, {3, "noise", 9}};
    const Tensor found = gpu_normals(host, at::kCPU, streams, 1001, 2000);
    EXPECT_TRUE(found[1].equal(expected.narrow(0, 1001, 2000)));
    EXPECT_FALSE(found[0].equal(found[1]));
}

}  // namespace atelier::backends
