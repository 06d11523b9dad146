#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <set>

#include "atelier/backends/torch/gpu_kernels.h"
#include "atelier/distillation/distribution_matching.h"
#include "atelier/distillation/health.h"
#include "atelier/distillation/score_matching.h"
#include "atelier/kernels/gpu/host_launcher.h"
#include "atelier/networks/network.h"
#include "atelier/training/checkpoint.h"
#include "atelier/training/loop.h"
#include "atelier/training/stepper.h"
#include "core/test_folder.h"
#include "device/pretend_device.h"
#include "parallel/rank_threads.h"

/// What training steps cost on an accelerator, counted on the pretended one: operations, and waits
/// of the host.
namespace atelier::pretend {

namespace {

using distillation::MatchingSettings;

networks::Network network_of(const nlohmann::json& config) {
    return networks::make_network(core::JsonObject(config, "test"));
}

/// The depth of the ImageNet-64 recipes' teacher, with few channels and pixels.
networks::Network imagenet_depth() {
    return network_of({{"architecture", "adm_unet"},
                       {"resolution", 16},
                       {"channels", 3},
                       {"classes", 10},
                       {"model_channels", 16},
                       {"channel_mult", {1, 2, 3, 4}},
                       {"num_blocks", 3},
                       {"attention_resolutions", {8, 4, 2}}});
}

networks::Network small_unet() {
    return network_of({{"architecture", "adm_unet"},
                       {"resolution", 8},
                       {"channels", 3},
                       {"classes", 10},
                       {"model_channels", 16},
                       {"channel_mult", {1, 2}},
                       {"num_blocks", 1},
                       {"attention_resolutions", {4}}});
}

/// The stages of a student, on the device.
class Bench {
public:
    explicit Bench(const networks::Network& of, std::optional<at::ScalarType> type = at::kBFloat16)
        : network(of),
          context{.noise = diffusion::NoiseSchedule::edm(0.5, 0.002, 80),
                  .compute = {.type = type},
                  .stream = "test"},
          student(weights(1)),
          fake(weights(2)),
          teacher_weights(weights(3).cast_weights(type.value_or(at::kFloat))),
          teacher(network, teacher_weights, context.noise, context.compute) {}

    backends::Parameters weights(std::uint64_t seed) const {
        return backends::initialise(networks::trace(network).parameters, seed).to(device);
    }

    std::vector<std::int64_t> shape() const {
        std::vector<std::int64_t> all{batch};
        all.insert(all.end(), network.data_shape.begin(), network.data_shape.end());
        return all;
    }

    distillation::LabelledBatch real(std::int64_t step) const {
        if (watch) watch();
        core::RandomStream stream(7, "test/real", static_cast<std::uint64_t>(step));
        const Tensor samples = diffusion::normal_tensor(stream, shape());
        if (spoil && spoil(step)) samples.fill_(std::numeric_limits<float>::quiet_NaN());
        return {samples, {0, 1, 2, 3}};
    }

    std::unique_ptr<distillation::Stage> matching(MatchingSettings settings) {
        if (settings.adversarial) fake.merge(distillation::init_head(network, 4).to(device), "");
        settings.batch = batch;
        return std::make_unique<distillation::DistributionMatching>(
            distillation::MatchingInputs{network, student, network, fake, teacher,
                                         conditions::Prior{std::vector<double>(10, 1)},
                                         [this](std::int64_t step) { return real(step); },
                                         [this](std::int64_t step) { return pairs(step); },
                                         distillation::pseudo_huber},
            settings, context);
    }

    distillation::PairBatch pairs(std::int64_t step) const {
        const distillation::LabelledBatch all = real(step);
        return {all.samples, 0.5 * all.samples, all.labels};
    }

    std::unique_ptr<distillation::Stage> score_matching(bool with_teacher) {
        distillation::ScoreMatchingSettings settings{
            .steps = 12, .batch = batch, .optimization = {.ema_decay = 0.99}};
        return std::make_unique<distillation::ScoreMatching>(
            distillation::ScoreMatchingInputs{network, student, with_teacher ? &teacher : nullptr,
                                              [this](std::int64_t step) { return real(step); }},
            settings, context);
    }

    static constexpr std::int64_t batch = 4;
    at::Device device{at::kPrivateUse1};
    networks::Network network;
    distillation::StageContext context;
    backends::Parameters student, fake, teacher_weights;
    diffusion::EdmDenoiser teacher;
    std::function<void()> watch;                   // called for each batch of data
    std::function<bool(std::int64_t step)> spoil;  // whether a batch holds NaN
};

/// What the second step of a stage costs.
Counts counts_of(distillation::Stage& stage,
                 parallel::Reduction reduction = parallel::Reduction::exact) {
    training::Stepper stepper(stage, reduction);
    stepper.step(0);
    reset();
    stepper.step(1);
    return counts();
}

/// DMD2 with its GAN: five updates of the fake score, one of the student.
MatchingSettings dmd2() {
    return {.student = {.ema_decay = 0.9995, .more_ema_decays = {0.9999}},
            .adversarial = distillation::AdversarialSettings{.gan_weight = 0.003}};
}

}  // namespace

// Before weights had narrow copies, normalisations their input's type, and metrics were read later,
// the same cycle took 28,389 operations and 88 waits.
TEST(Steps, launch_few_operations) {
    constexpr std::int64_t before = 28389;
    Bench bench(imagenet_depth());
    const Counts found = counts_of(*bench.matching(dmd2()));
    EXPECT_LE(found.launched(), 6 * before / 10) << found.description();
    EXPECT_EQ(found.waited(), 0) << found.description();
}

TEST(Steps, of_every_stage_leave_the_host_no_wait) {
    struct Case {
        const char* name;
        std::function<std::unique_ptr<distillation::Stage>(Bench&)> stage;
    };
    const auto matching = [](const std::function<void(MatchingSettings&)>& change) {
        return [change](Bench& bench) {
            MatchingSettings settings = dmd2();
            change(settings);
            return bench.matching(settings);
        };
    };
    const std::vector<Case> cases{
        {"teacher", [](Bench& bench) { return bench.score_matching(false); }},
        {"TSM", [](Bench& bench) { return bench.score_matching(true); }},
        {"DM", matching([](auto& settings) { settings.adversarial.reset(); })},
        {"ADM", matching([](auto&) {})},
        {"balanced ADM",
         matching([](auto& settings) { settings.adversarial->gan_weight.reset(); })},
        {"ADM at low levels",
         matching([](auto& settings) { settings.adversarial->highest_level = 300; })},
        {"R1", matching([](auto& settings) { settings.adversarial->r1_weight = 0.1; })},
        {"pairs", matching([](auto& settings) {
             settings.regression = distillation::PairLoss::pseudo_huber;
         })},
        {"SiD", matching([](auto& settings) {
             settings.adversarial.reset();
             settings.loss = distillation::MatchingLoss::score_identity;
         })}};
    for (const auto type : {std::optional<at::ScalarType>(), std::optional(at::kBFloat16)}) {
        for (const Case& each : cases) {
            Bench bench(small_unet(), type);
            const Counts found = counts_of(*each.stage(bench));
            EXPECT_EQ(found.waited(), 0) << each.name << "\n" << found.description();
        }
    }
}

TEST(Steps, remember_a_weight_that_was_found_on_the_device) {
    Bench bench(small_unet());
    MatchingSettings settings = dmd2();
    settings.adversarial->gan_weight.reset();
    const auto stage = bench.matching(settings);
    training::Stepper stepper(*stage);
    stepper.step(0);
    const double first = *stage->scalars().at("gan_weight");
    EXPECT_GT(first, 0);
    const auto metrics = stepper.step(1).read();
    EXPECT_EQ(distillation::metric(metrics, "gan_weight"), *stage->scalars().at("gan_weight"));
    EXPECT_NE(*stage->scalars().at("gan_weight"), first);
}

TEST(Steps, in_micro_batches_wait_once_for_each_update_where_their_sum_is_exact) {
    for (const auto reduction : {parallel::Reduction::floating, parallel::Reduction::exact}) {
        Bench bench(small_unet());
        MatchingSettings settings = dmd2();
        settings.micro_batch = 2;
        const auto stage = bench.matching(settings);
        const Counts found = counts_of(*stage, reduction);
        constexpr std::int64_t updates = 6;
        EXPECT_EQ(found.waited(), reduction == parallel::Reduction::exact ? updates : 0)
            << found.description();
    }
}

/// Micro-batches of gradients for two tensors.
using MicroBatches = std::vector<std::vector<Tensor>>;

struct Summed {
    std::int64_t passes = 0;
    bool finite = true;
    std::vector<Tensor> sums{};
};

Summed summed_on(const at::Device& device, const MicroBatches& all) {
    std::vector<Tensor> parameters;
    for (const Tensor& like : all.front()) parameters.push_back(at::zeros_like(like).to(device));
    parallel::GradientSum sum(parallel::Ranks::alone(), parallel::Reduction::exact, parameters,
                              static_cast<std::int64_t>(all.size()));
    Summed found;
    do {
        ++found.passes;
        for (const auto& gradients : all) {
            std::vector<Tensor> there;
            for (const Tensor& gradient : gradients) there.push_back(gradient.to(device));
            sum.add(there);
        }
    } while (!sum.complete({sum.report()}));
    found.finite = sum.finite();
    for (const Tensor& tensor : sum.take()) found.sums.push_back(tensor.to(at::kCPU));
    return found;
}

void expect_summed_as_on_the_host(const MicroBatches& all, std::int64_t passes) {
    const Summed expected = summed_on(at::kCPU, all), found = summed_on(at::kPrivateUse1, all);
    EXPECT_EQ(expected.passes, passes);
    EXPECT_EQ(found.passes, passes);
    EXPECT_EQ(found.finite, expected.finite);
    ASSERT_EQ(found.sums.size(), expected.sums.size());
    for (std::size_t i = 0; i < found.sums.size(); ++i)
        EXPECT_TRUE(at::equal(found.sums[i].view(at::kInt), expected.sums[i].view(at::kInt)));
}

TEST(Steps, in_micro_batches_are_summed_as_on_the_host) {
    const double nan = std::numeric_limits<double>::quiet_NaN(), inf = 1 / 0.0;
    // Gradients that are zero at first, far larger than the first, or not finite.
    const std::vector<std::pair<std::vector<double>, std::int64_t>> cases{
        {{1, 0.1, 3}, 1}, {{0, 0, 2}, 1},   {{1, 1e9, 1}, 2}, {{1, 1e30}, 2},
        {{nan, 1}, 1},    {{1, inf, 1}, 1}, {{0, 0}, 1}};
    for (const auto& [scales, passes] : cases) {
        core::RandomStream stream(7, "test/sums");
        MicroBatches all;
        for (const double scale : scales)
            all.push_back({diffusion::normal_tensor(stream, {40}) * scale,
                           diffusion::normal_tensor(stream, {3, 5}) * 1e-38});
        SCOPED_TRACE(testing::PrintToString(scales));
        expect_summed_as_on_the_host(all, passes);
    }
    // The last that has room, and the first that has none: 2^14 times the next power of two.
    for (const auto& [first, above] : {std::pair(1.0F, 2.0F), {0.75F, 1.0F}, {1e-41F, 0x1p-136F}}) {
        const float most = above * 0x1p14F, more = std::nextafter(most, 1.0F / 0.0F);
        for (const auto& [later, passes] : {std::pair(most, 1), {-most, 1}, {more, 2}}) {
            SCOPED_TRACE(fmt::format("{} and {}", first, later));
            expect_summed_as_on_the_host({{at::full({3}, first)}, {at::full({3}, later)}}, passes);
        }
    }
}

/// The weights of student and fake score after two steps on so many ranks.
std::string trained_by(int world, bool share_optimizers,
                       std::optional<at::ScalarType> type = at::kBFloat16,
                       std::optional<double> gan_weight = 0.003) {
    std::mutex mutex;
    std::set<std::string> hashes;
    parallel::as_ranks(world, [&](parallel::Ranks& ranks) {
        Bench bench(small_unet(), type);
        MatchingSettings settings = dmd2();
        settings.adversarial->gan_weight = gan_weight;
        settings.micro_batch = 1;
        const auto stage = bench.matching(settings);
        training::Stepper stepper(*stage, parallel::Reduction::exact, ranks, share_optimizers,
                                  /*bucket_bytes=*/4096);
        for (std::int64_t step = 0; step < 2; ++step) stepper.step(step);
        EXPECT_EQ(stepper.early_sums() > 0, world > 1);
        const std::lock_guard lock(mutex);
        hashes.insert(backends::hash_of(bench.student.to(at::kCPU)) +
                      backends::hash_of(bench.fake.to(at::kCPU)));
    });
    EXPECT_EQ(hashes.size(), 1U);
    return *hashes.begin();
}

TEST(Steps, of_ranks_come_to_the_weights_of_one) {
    const std::string alone = trained_by(1, false);
    EXPECT_EQ(trained_by(2, true), alone);
    EXPECT_EQ(trained_by(4, false), alone);
    EXPECT_EQ(trained_by(2, false, std::nullopt, std::nullopt),
              trained_by(1, false, std::nullopt, std::nullopt))
        << "in float32, with a GAN weight that is found";
}

/// Gives the pretended device our kernels for GPUs, which the host runs.
class OurKernels : public kernels::gpu::HostLauncher {
public:
    OurKernels() { backends::set_gpu_kernels(at::kPrivateUse1, this); }
    ~OurKernels() override { backends::set_gpu_kernels(at::kPrivateUse1, nullptr); }
    OurKernels(const OurKernels&) = delete;
    OurKernels& operator=(const OurKernels&) = delete;

    /// How often a kernel was launched whose name begins so.
    std::int64_t launched(std::string_view begin) const {
        const std::lock_guard lock(mutex_);
        std::int64_t sum = 0;
        for (const auto& [name, times] : launches_) sum += name.starts_with(begin) ? times : 0;
        return sum;
    }

protected:
    void launch_raw(std::string_view kernel, kernels::gpu::Grid grid, unsigned threads,
                    const void* arguments) const override {
        {
            const std::lock_guard lock(mutex_);
            ++launches_[std::string(kernel)];
        }
        HostLauncher::launch_raw(kernel, grid, threads, arguments);
    }

private:
    mutable std::mutex mutex_;
    mutable std::map<std::string, std::int64_t> launches_;
};

/// What three steps make of weights and averages, on the host: what was added to them.
std::map<std::string, backends::Parameters> changes_by_steps(std::optional<at::ScalarType> type) {
    Bench bench(small_unet(), type);
    const backends::Parameters before = bench.student.clone();
    const auto stage = bench.matching(dmd2());
    training::Stepper stepper(*stage);
    for (std::int64_t step = 0; step < 3; ++step) stepper.step(step);
    stepper.check();
    for (const auto& [name, tensor] : bench.student.tensors()) {
        if (type && !backends::is_buffer(name))
            EXPECT_TRUE(bench.student.narrow(name).cpu().equal(tensor.detach().to(*type).cpu()))
                << name << ": its narrow copy";
    }
    const training::Optimizer& optimizer = stepper.optimizers().back();
    std::map<std::string, backends::Parameters> found = optimizer.more_averages();
    found["weights"] = bench.student;
    found["average"] = optimizer.averaged();
    for (auto& [what, all] : found) {
        backends::Parameters changes;
        for (const auto& [name, tensor] : all.tensors())
            changes.set(name, (tensor.detach() - before.at(name)).cpu());
        all = changes;
    }
    return found;
}

double norm_of(const backends::Parameters& all) {
    double sum = 0;
    for (const auto& [name, tensor] : all.tensors()) sum += tensor.square().sum().item<double>();
    return std::sqrt(sum);
}

TEST(Steps, by_our_kernels_come_to_the_weights_and_averages_of_libtorchs_operations) {
    for (const auto type : {std::optional<at::ScalarType>(), std::optional(at::kBFloat16)}) {
        const auto expected = changes_by_steps(type);
        reset();
        changes_by_steps(type);
        const std::int64_t without = counts().launched();
        const OurKernels kernels;
        reset();
        const auto found = changes_by_steps(type);
        EXPECT_LT(counts().launched(), without);
        for (const char* kernel : {"group_norm", "adamw", "normal_numbers"})
            EXPECT_GT(kernels.launched(kernel), 0) << kernel;
        ASSERT_EQ(found.size(), 3U);
        for (const auto& [what, all] : expected) {
            backends::Parameters apart;
            for (const auto& [name, tensor] : all.tensors())
                apart.set(name, found.at(what).at(name) - tensor);
            EXPECT_GT(norm_of(all), 0) << what;
            EXPECT_LT(norm_of(apart), (type ? 0.3 : 1e-2) * norm_of(all)) << what;
        }
    }
}

TEST(Steps, by_our_kernels_wait_for_nothing_and_do_not_depend_on_the_number_of_ranks) {
    const OurKernels kernels;
    Bench bench(small_unet());
    const Counts found = counts_of(*bench.matching(dmd2()));
    EXPECT_EQ(found.waited(), 0) << found.description();
    const std::string alone = trained_by(1, false);
    EXPECT_EQ(trained_by(2, true), alone);
}

TEST(Steps, of_the_loop_leave_the_host_no_wait_between_two_lines_of_the_log) {
    const core::TestFolder folder;
    Bench bench(small_unet());
    std::vector<std::int64_t> waits;  // when each batch of data is asked for
    bench.watch = [&] { waits.push_back(counts().waited()); };
    const auto stage = bench.score_matching(false);
    training::LoopSettings settings;
    settings.label = "bench";
    settings.folder = folder.path();
    settings.log_every = 4;
    settings.checkpoint_seconds = 1e6;
    reset();
    training::run_stage(*stage, settings);
    ASSERT_EQ(waits.size(), 12U);
    EXPECT_EQ(waits[1], waits[3]) << "steps 1 and 2, and the beginning of 3";
    EXPECT_LT(waits[3], waits[4]) << "step 3 ends in a line";
    EXPECT_EQ(waits[4], waits[7]);
}

TEST(Steps, that_were_not_finite_are_named_when_they_are_checked) {
    Bench bench(small_unet());
    std::int64_t bad = 2;
    bench.spoil = [&](std::int64_t step) { return step == bad; };
    const auto stage = bench.score_matching(false);
    training::Stepper stepper(*stage);
    for (std::int64_t step = 0; step < 2; ++step) stepper.step(step);
    stepper.check();
    const backends::Parameters good = bench.student.clone();
    for (std::int64_t step = 2; step < 4; ++step) stepper.step(step);
    core::expect_contains(core::error_of([&] { stepper.check(); }),
                          "the loss of model became nan at step 2");
    bad = 0;
    training::Stepper again(*stage);
    again.step(0);
    for (const auto& [name, tensor] : good.tensors())
        EXPECT_TRUE(bench.student.at(name).isfinite().all().item<bool>()) << name;
}

TEST(Steps, go_on_from_a_checkpoint_that_was_written_beside_them) {
    const core::TestFolder whole, parts;
    const auto run = [](const core::TestFolder& folder, std::int64_t killed_at) {
        Bench bench(small_unet());
        bench.spoil = [&](std::int64_t step) {
            if (step == killed_at) throw std::runtime_error("killed");
            return false;
        };
        const auto stage = bench.score_matching(false);
        training::LoopSettings settings;
        settings.label = "bench";
        settings.folder = folder.path();
        settings.checkpoint_seconds = 0;
        return backends::hash_of(training::run_stage(*stage, settings).raw_weights);
    };
    EXPECT_THROW(run(parts, 7), std::runtime_error);
    EXPECT_TRUE(training::CheckpointFolder(parts / "checkpoints").latest());
    EXPECT_EQ(run(parts, -1), run(whole, -1));
}

}  // namespace atelier::pretend
