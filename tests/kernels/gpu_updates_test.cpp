#include <atomic>

#include "atelier/kernels/gpu/adamw.h"
#include "atelier/kernels/gpu/host_launcher.h"
#include "atelier/kernels/gpu/normals.h"
#include "backends/tensors.h"

/// AdamW with averages and copies, and normal numbers, run on the host.
namespace atelier::kernels::gpu {

using namespace backends;

namespace {

/// One tensor with everything that is updated with it.
struct Trained {
    Tensor parameter, gradient, first_moment, second_moment, copy;
    std::vector<Tensor> averages;

    Trained(std::int64_t count, std::size_t average_count)
        : parameter(normal({count}, "parameter")),
          gradient(normal({count}, "gradient") * 0.1),
          first_moment(normal({count}, "first") * 0.1),
          second_moment(normal({count}, "second").square() * 0.01),
          copy(at::full({count}, std::nan(""), at::kBFloat16)) {
        for (std::size_t i = 0; i < average_count; ++i)
            averages.push_back(normal({count}, fmt::format("average/{}", i)));
    }

    AdamWState state() const {
        const auto floats = [](const Tensor& tensor) { return tensor.mutable_data_ptr<float>(); };
        AdamWState all{floats(parameter),
                       floats(gradient),
                       floats(first_moment),
                       floats(second_moment),
                       {},
                       copy.mutable_data_ptr(),
                       parameter.numel()};
        for (const Tensor& average : averages) all.averages.push_back(floats(average));
        return all;
    }

    std::vector<Tensor> written() const {
        std::vector<Tensor> all{parameter, first_moment, second_moment, copy};
        all.insert(all.end(), averages.begin(), averages.end());
        return all;
    }
};

constexpr float beta1 = 0.9F, beta2 = 0.99F, weight_decay = 0.01F, adam_eps = 1e-8F;

struct Scalars {
    float step = 3, rate = 1e-2F, grad_scale = 4, found_inf = 0;

    AdamWScalars pointers() const { return {&step, &rate, &grad_scale, &found_inf}; }
};

/// Counts launches.
class CountingLauncher : public HostLauncher {
public:
    mutable int launches = 0;

protected:
    void launch_raw(std::string_view kernel, Grid grid, unsigned threads,
                    const void* arguments) const override {
        ++launches;
        HostLauncher::launch_raw(kernel, grid, threads, arguments);
    }
};

/// Algorithm 2 of Loshchilov & Hutter 2019 in float64, then the averages.
void expect_updated(const Trained& before, const Trained& after, const Scalars& scalars,
                    const std::vector<double>& decays) {
    const double step = scalars.step, rate = scalars.rate;
    const Tensor g = before.gradient.to(at::kDouble) / scalars.grad_scale;
    const Tensor m = double{beta1} * before.first_moment + (1 - double{beta1}) * g;
    const Tensor v = double{beta2} * before.second_moment + (1 - double{beta2}) * g * g;
    const Tensor m_hat = m / (1 - std::pow(double{beta1}, step)),
                 v_hat = v / (1 - std::pow(double{beta2}, step));
    const Tensor parameter = before.parameter.to(at::kDouble);
    const Tensor expected =
        parameter - rate * (m_hat / (v_hat.sqrt() + double{adam_eps}) + weight_decay * parameter);
    EXPECT_LT(relative_distance(after.first_moment, m), 1e-6);
    EXPECT_LT(relative_distance(after.second_moment, v), 1e-6);
    EXPECT_LT(relative_distance(after.parameter, expected), 1e-6);
    EXPECT_TRUE(after.copy.equal(after.parameter.to(at::kBFloat16)));
    for (std::size_t i = 0; i < decays.size(); ++i) {
        const double keep = std::min(decays[i], (1 + step) / (10 + step));
        EXPECT_LT(relative_distance(after.averages[i], keep * before.averages[i].to(at::kDouble) +
                                                           (1 - keep) * expected),
                  1e-6)
            << "average " << i;
    }
}

std::vector<float> normals(std::uint64_t index, std::uint64_t first, std::uint64_t count,
                           const Launcher& launcher = HostLauncher()) {
    std::vector<float> out(count, std::nanf(""));
    fill_normal(launcher, core::stream_key(7, "dm/2/fake/noise"), index, first, count, out.data());
    return out;
}

}  // namespace

TEST(GpuAdamW, is_the_definition_for_any_sizes_and_numbers_of_averages) {
    for (const std::vector<double>& decays :
         {std::vector<double>{}, {0.9}, {0.1, 0.2, 0.3}, {0.9, 0.1, 0.2, 0.3, 0.05, 0.25, 0.35}}) {
        for (const std::int64_t count : {1, 255, 4096, 10000}) {
            const Trained before(count, decays.size()), after(count, decays.size());
            const Scalars scalars;
            const std::vector<AdamWState> states{after.state()};
            adamw(HostLauncher(), {beta1, beta2, weight_decay, adam_eps, decays},
                  scalars.pointers(), states);
            expect_updated(before, after, scalars, decays);
        }
    }
}

TEST(GpuAdamW, agrees_with_libtorchs_over_several_steps) {
    const Trained ours(1000, 0), theirs(1000, 0);
    for (int step = 1; step <= 20; ++step) {
        const Tensor gradient = normal({1000}, fmt::format("gradient/{}", step));
        ours.gradient.copy_(gradient);
        Scalars scalars;
        scalars.step = static_cast<float>(step);
        scalars.grad_scale = 1;
        const std::vector<AdamWState> states{ours.state()};
        adamw(HostLauncher(), {beta1, beta2, weight_decay, adam_eps, {}}, scalars.pointers(),
              states);
        at::_fused_adamw_({theirs.parameter}, {gradient}, {theirs.first_moment},
                          {theirs.second_moment}, {}, {at::tensor(static_cast<float>(step))},
                          double{scalars.rate}, beta1, beta2, weight_decay, adam_eps, false, false,
                          std::nullopt, std::nullopt);
    }
    EXPECT_LT(relative_distance(ours.parameter, theirs.parameter), 1e-6);
    EXPECT_LT(relative_distance(ours.second_moment, theirs.second_moment), 1e-6);
}

TEST(GpuAdamW, many_tensors_take_few_launches) {
    std::vector<Trained> before, after;
    std::vector<AdamWState> states;
    for (int i = 0; i < 100; ++i) {
        const std::int64_t count = i % 7 == 3 ? 0 : 1 + (i * 997) % 9000;  // empty ones, too
        before.emplace_back(count, 1);
        after.emplace_back(count, 1);
        states.push_back(after.back().state());
    }
    const Scalars scalars;
    const CountingLauncher launcher;
    adamw(launcher, {beta1, beta2, weight_decay, adam_eps, {0.3}}, scalars.pointers(), states);
    EXPECT_EQ(launcher.launches, 2);
    for (std::size_t i = 0; i < before.size(); ++i) {
        if (before[i].parameter.numel() > 0) expect_updated(before[i], after[i], scalars, {0.3});
    }
}

TEST(GpuAdamW, found_inf_leaves_everything_as_it_was) {
    const std::vector<double> decays{0.1, 0.2, 0.3, 0.4};
    const Trained before(5000, decays.size()), after(5000, decays.size());
    Scalars scalars;
    scalars.found_inf = 1;
    const std::vector<AdamWState> states{after.state()};
    adamw(HostLauncher(), {beta1, beta2, weight_decay, adam_eps, decays}, scalars.pointers(),
          states);
    for (std::size_t i = 0; i < before.written().size(); ++i)
        EXPECT_TRUE(at::equal(before.written()[i].nan_to_num(), after.written()[i].nan_to_num()));
    scalars.found_inf = 0;
    adamw(HostLauncher(), {beta1, beta2, weight_decay, adam_eps, decays}, scalars.pointers(),
          states);
    EXPECT_FALSE(after.parameter.equal(before.parameter));
}

TEST(GpuAdamW, scalars_and_copies_may_be_left_out) {
    const Trained before(300, 0), after(300, 0);
    Scalars scalars;
    scalars.grad_scale = 1;
    std::vector<AdamWState> states{after.state()};
    states[0].copy = nullptr;
    adamw(HostLauncher(), {beta1, beta2, weight_decay, adam_eps, {}},
          {&scalars.step, &scalars.rate}, states);
    EXPECT_TRUE(after.copy.isnan().all().item<bool>());
    after.copy.copy_(after.parameter);
    expect_updated(before, after, scalars, {});
}

TEST(GpuAdamW, rejects_averages_without_a_decay) {
    const Trained trained(3, 2);
    const Scalars scalars;
    const std::vector<AdamWState> states{trained.state()};
    expect_contains(error_of([&] {
                        adamw(HostLauncher(), {beta1, beta2, weight_decay, adam_eps, {0.5}},
                              scalars.pointers(), states);
                    }),
                    "2 averages for 1 decays");
}

TEST(GpuNormals, are_those_of_a_random_stream_to_the_bit) {
    constexpr std::uint64_t index = 123456789012ULL;
    std::vector<float> expected(1 << 18);
    core::RandomStream(7, "dm/2/fake/noise", index).fill_normal(expected);
    EXPECT_EQ(normals(index, 0, expected.size()), expected);
    EXPECT_EQ(normals(index, 0, expected.size(), HostLauncher(HostLauncher::Order::backward)),
              expected);
    // Any range, whatever was drawn before.
    for (const std::uint64_t first : {1, 2, 3, 4, 1023, 100001}) {
        for (const std::uint64_t count : {1, 2, 3, 5, 1024, 4099}) {
            const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(first);
            EXPECT_EQ(normals(index, first, count),
                      std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(count)))
                << first << ", " << count;
        }
    }
    EXPECT_TRUE(normals(index, 5, 0).empty());
}

TEST(GpuNormals, streams_of_another_index_differ) {
    EXPECT_NE(normals(1, 0, 4), normals(2, 0, 4));
    EXPECT_NE(normals(1, 0, 4), normals(1 + (std::uint64_t{1} << 32), 0, 4));
}

TEST(GpuNormals, positions_beyond_32_bits_count) {
    EXPECT_NE(normals(1, 0, 4), normals(1, std::uint64_t{1} << 34, 4));
}

TEST(HostLauncher, names_a_kernel_that_is_not_there) {
    const HostLauncher launcher;
    expect_contains(error_of([&] { launcher.launch("no_such_kernel", {}, 256, 0); }),
                    "no_such_kernel");
}

}  // namespace atelier::kernels::gpu
