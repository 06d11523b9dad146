#include <mutex>
#include <numeric>

#include "atelier/training/checkpoint.h"
#include "atelier/training/optimizer.h"

#include "parallel/rank_threads.h"
#include "training/training_fixtures.h"

/// Moments and averages that ranks share out, compared with those of one process.
namespace atelier::training {
namespace {

using backends::Parameters;
using parallel::as_ranks;
using parallel::Ranks;

const distillation::Optimization settings{.lr = 0.05,
                                          .weight_decay = 0.1,
                                          .clip = 1.5,
                                          .warmup = 3,
                                          .ema_decay = 0.9,
                                          .more_ema_decays = {0.5}};
constexpr std::int64_t total = 8;

/// Of many sizes, in two memory layouts, with a buffer that is never trained.
Parameters tensors() {
    return Parameters(
        {{"a.weight", values_of("a", 0, {40, 30})},
         {"b.weight", values_of("b", 0, {8, 3, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast)},
         {"b.bias", values_of("b", 1, {8})},
         {"c.weight", values_of("c", 0, {37, 19})},
         {"map.freqs", values_of("f", 0, {16})},
         {"scale", values_of("s", 0, {})}});
}

void update(Optimizer& optimizer, const Parameters& parameters, std::int64_t t) {
    std::vector<Tensor> gradients;
    for (const auto& [name, tensor] : parameters.tensors())
        gradients.push_back(values_of("g/" + name, t, tensor.sizes()));
    if (t % 3 == 1) gradients[1] = Tensor();
    optimizer.update(std::move(gradients));
}

/// What `updates` by one process make of the tensors.
struct Whole {
    explicit Whole(std::int64_t updates) : optimizer(parameters, settings, total) {
        for (std::int64_t t = 0; t < updates; ++t) update(optimizer, parameters, t);
    }
    Parameters parameters = tensors();
    Optimizer optimizer;
};

TEST(Owners, have_nearly_equal_shares_of_whole_tensors) {
    EXPECT_EQ(parallel::owners_of({5, 9, 1, 4}, 2), (std::vector<int>{1, 0, 0, 1}));
    EXPECT_EQ(parallel::largest_share({5, 9, 1, 4}, 2), 10.0 / 19);
    EXPECT_EQ(parallel::largest_share({5, 9, 1, 4}, 1), 1);
    EXPECT_EQ(parallel::largest_share({5}, 8), 1);
    EXPECT_EQ(parallel::largest_share({}, 8), 1);
    const std::vector<std::int64_t> many(64, 100);
    EXPECT_EQ(parallel::largest_share(many, 16), 1.0 / 16);
}

TEST(OptimizerSharding, comes_to_the_bytes_of_one_process_that_keeps_all) {
    const Whole whole(5);
    const std::string state = backends::hash_of(whole.optimizer.state());
    for (const int world : {2, 3, 4, 8}) {  // at last more ranks than tensors
        SCOPED_TRACE(world);
        std::mutex mutex;
        std::vector<std::int64_t> kept;
        as_ranks(world, [&](Ranks& ranks) {
            Parameters parameters = tensors();
            Optimizer optimizer(parameters, settings, total, ranks);
            for (std::int64_t t = 0; t < 5; ++t) update(optimizer, parameters, t);
            const Parameters found = optimizer.state(), average = optimizer.averaged(),
                             moments = optimizer.moments();
            const auto more = optimizer.more_averages();
            const std::lock_guard lock(mutex);
            expect_same_bits(parameters, whole.parameters);
            kept.push_back(optimizer.kept_bytes());
            if (!ranks.leads()) return;
            EXPECT_EQ(backends::hash_of(found), state);
            expect_same_bits(average, whole.optimizer.averaged());
            expect_same_bits(more.at("0.5"), whole.optimizer.more_averages().at("0.5"));
            expect_same_bits(moments, whole.optimizer.moments());
            for (const auto& [name, tensor] : average.tensors())
                EXPECT_EQ(tensor.strides(), parameters.at(name).strides()) << name;
        });
        ASSERT_EQ(kept.size(), static_cast<std::size_t>(world));
        const std::int64_t all = whole.optimizer.kept_bytes();
        EXPECT_EQ(std::accumulate(kept.begin(), kept.end(), std::int64_t{0}), all);
        std::vector<std::int64_t> sizes;
        for (const auto& [name, tensor] : whole.parameters.tensors())
            sizes.push_back(tensor.numel());
        EXPECT_EQ(static_cast<double>(*std::max_element(kept.begin(), kept.end())),
                  static_cast<double>(all) * parallel::largest_share(sizes, world));
    }
}

TEST(OptimizerSharding, goes_on_from_the_state_of_any_other_number_of_ranks) {
    const Whole before(3), after(6);
    const Parameters saved = before.optimizer.state().clone();
    Parameters from_two;
    as_ranks(2, [&](Ranks& ranks) {
        Parameters parameters = tensors();
        Optimizer optimizer(parameters, settings, total, ranks);
        update(optimizer, parameters, 100);  // the existing state is overwritten
        optimizer.restore(saved);
        for (std::int64_t t = 3; t < 5; ++t) update(optimizer, parameters, t);
        const Parameters state = optimizer.state();
        if (ranks.leads()) from_two = state.clone();
    });
    as_ranks(3, [&](Ranks& ranks) {
        Parameters parameters = tensors();
        Optimizer optimizer(parameters, settings, total, ranks);
        optimizer.restore(from_two);
        update(optimizer, parameters, 5);
        const Parameters state = optimizer.state();
        if (ranks.leads()) expect_same_bits(state, after.optimizer.state());
    });
    Parameters alone = tensors();
    Optimizer optimizer(alone, settings, total);
    optimizer.restore(from_two);
    update(optimizer, alone, 5);
    expect_same_bits(optimizer.state(), after.optimizer.state());
}

TEST(OptimizerSharding, takes_moments_and_refuses_the_state_of_another_network_on_every_rank) {
    const Whole whole(4);
    const Parameters moments = whole.optimizer.moments().clone();
    Parameters other = whole.optimizer.state().clone(), narrow = moments.clone();
    other.set("second_moment/c.weight", at::zeros({2}));
    narrow.set("first_moment/scale", at::zeros({2}));
    as_ranks(3, [&](Ranks& ranks) {
        Parameters parameters = tensors();
        Optimizer optimizer(parameters, settings, total, ranks);
        EXPECT_FALSE(optimizer.take_moments(narrow));
        EXPECT_TRUE(optimizer.take_moments(moments));
        const Parameters taken = optimizer.moments();
        if (ranks.leads()) expect_same_bits(taken, moments);
        Optimizer fresh(parameters, settings, total, ranks);
        core::expect_contains(core::error_of([&] { fresh.restore(other); }),
                              "second_moment/c.weight");
    });
}

TEST(OptimizerSharding, leaves_checkpoints_and_results_of_a_stage_as_they_are) {
    const core::TestFolder folder;
    const auto trained = [](const LoopSettings& of) {
        SmallStage stage(12);
        return run_stage(stage, of);
    };
    LoopSettings alone = every_step(folder / "alone");
    alone.keep_best = true;
    const LoopResult expected = trained(alone);
    const auto checkpoint = CheckpointFolder(folder / "alone/checkpoints").latest();
    for (const int world : {2, 4}) {
        LoopSettings shared = alone;
        shared.folder = folder / std::to_string(world);
        shared.optimizer_sharding = true;
        as_ranks(world, [&](Ranks& ranks) {
            LoopSettings mine = shared;
            mine.ranks = &ranks;
            const LoopResult found = trained(mine);
            expect_same_bits(found.raw_weights, expected.raw_weights);
            if (!ranks.leads()) return;
            expect_same_bits(found.weights, expected.weights);
            expect_same_bits(found.moments, expected.moments);
            EXPECT_EQ(found.best_step, expected.best_step);
        });
        const auto other = CheckpointFolder(shared.folder / "checkpoints").latest();
        ASSERT_TRUE(other);
        EXPECT_EQ(other->step, 12);
        expect_same_bits(other->tensors, checkpoint->tensors);
    }
}

}  // namespace
}  // namespace atelier::training
