#include "atelier/parallel/gradient_sum.h"

#include <cmath>
#include <fstream>
#include <mutex>
#include <optional>

#include "atelier/core/random_streams.h"
#include "atelier/core/signals.h"

#include "core/test_folder.h"
#include "parallel/rank_threads.h"

namespace atelier::parallel {
namespace {

using Gradients = std::vector<Tensor>;

Tensor normal(const std::string& name, at::IntArrayRef shape, double scale) {
    core::RandomStream stream(3, name);
    Tensor values = at::empty(shape, at::kFloat);
    stream.fill_normal(
        {values.mutable_data_ptr<float>(), static_cast<std::size_t>(values.numel())});
    return values * scale;
}

Gradients parameters() {
    return {at::zeros({7, 5}), at::zeros({40000}),
            at::zeros({2, 3, 4, 4}).contiguous(at::MemoryFormat::ChannelsLast)};
}

/// Of very different sizes, from tensor to tensor and from micro-batch to micro-batch.
std::vector<Gradients> micro_batches(int count) {
    std::vector<Gradients> all;
    for (int m = 0; m < count; ++m) {
        const std::string name = std::to_string(m);
        const double scale = std::pow(3.0, m % 5 - 2);
        all.push_back({normal("a" + name, {7, 5}, 1e-6 * scale),
                       normal("b" + name, {40000}, 100 * scale),
                       normal("c" + name, {2, 3, 4, 4}, 1e-30 * scale)});
    }
    return all;
}

struct Outcome {
    Gradients sums;
    bool finite = true;
    int passes = 0;
};

bool operator==(const Outcome& a, const Outcome& b) {
    if (a.finite != b.finite || a.passes != b.passes || a.sums.size() != b.sums.size())
        return false;
    for (std::size_t i = 0; i < a.sums.size(); ++i) {
        if (!at::equal(a.sums[i].view(at::kInt), b.sums[i].view(at::kInt))) return false;
    }
    return true;
}

/// How the gradients of the last round come.
using Sending = std::optional<Buckets>;
const std::vector<Sending> ways{std::nullopt, buckets_of({1, 0, 2}, {35, 40000, 96}, 1),
                                buckets_of({2, 0, 1}, {35, 40000, 96}, 2000)};

/// The sum as `world` ranks make it together; all of them must find the same.
Outcome summed(const std::vector<Gradients>& all, int world, Reduction how,
               const Sending& buckets) {
    std::mutex mutex;
    std::vector<Outcome> outcomes;
    as_ranks(world, [&](Ranks& ranks) {
        GradientSum sum(ranks, how, parameters(), static_cast<std::int64_t>(all.size()),
                        buckets ? &*buckets : nullptr);
        Outcome outcome;
        do {
            ++outcome.passes;
            for (std::size_t first = 0; first < all.size();
                 first += static_cast<std::size_t>(world)) {
                const std::size_t mine = first + static_cast<std::size_t>(ranks.rank());
                Gradients found = mine < all.size() ? all[mine] : Gradients{};
                if (!buckets || first + static_cast<std::size_t>(world) < all.size()) {
                    sum.add(std::move(found));
                    continue;
                }
                sum.begin();
                if (!found.empty()) {
                    for (const std::size_t i : {std::size_t{1}, std::size_t{0}})
                        sum.ready(i, std::exchange(found[i], Tensor()));
                }
                sum.finish(std::move(found));
            }
        } while (!sum.complete(ranks.gather(sum.report())));
        outcome.finite = sum.finite();
        outcome.sums = sum.take();
        const std::lock_guard lock(mutex);
        outcomes.push_back(std::move(outcome));
    });
    for (const Outcome& other : outcomes) EXPECT_TRUE(other == outcomes.front());
    return outcomes.front();
}

/// The same, which must not depend on how the last gradients come.
Outcome summed(const std::vector<Gradients>& all, int world, Reduction how = Reduction::exact) {
    const Outcome outcome = summed(all, world, how, std::nullopt);
    for (std::size_t way = 1; way < ways.size() && world > 1; ++way) {
        const Outcome other = summed(all, world, how, ways[way]);
        EXPECT_EQ(other.passes, outcome.passes);
        // Floats of more than two ranks are added in an order that depends on the bucket.
        if (how == Reduction::exact || world == 2) {
            EXPECT_TRUE(other == outcome) << way;
        } else {
            EXPECT_TRUE(at::allclose(other.sums[1], outcome.sums[1], 1e-5, 1e-3));
        }
    }
    return outcome;
}

Tensor in_doubles(const std::vector<Gradients>& all, std::size_t tensor) {
    Tensor sum = all[0][tensor].to(at::kDouble);
    for (std::size_t m = 1; m < all.size(); ++m) sum = sum + all[m][tensor].to(at::kDouble);
    return sum;
}

TEST(GradientSums, have_the_same_bits_for_any_number_of_ranks) {
    const auto all = micro_batches(7);
    const Outcome one = summed(all, 1);
    EXPECT_EQ(one.passes, 1);
    for (const int world : {2, 3, 4}) EXPECT_TRUE(one == summed(all, world)) << world;
    for (std::size_t i = 0; i < 3; ++i) {
        const Tensor exact = in_doubles(all, i);
        // The rounding of float32 is all that is lost of the large numbers.
        EXPECT_TRUE(at::allclose(one.sums[i].to(at::kDouble), exact, 1e-7,
                                 1e-9 * exact.abs().max().item<double>()));
        EXPECT_EQ(one.sums[i].strides(), parameters()[i].strides());
    }
}

TEST(GradientSums, do_not_depend_on_the_order_of_the_micro_batches) {
    auto all = micro_batches(9);
    const Outcome before = summed(all, 1);
    core::RandomStream stream(5, "order");
    for (int round = 0; round < 20; ++round) {
        // The first one gives the unit.
        const auto order = stream.permutation(8);
        std::vector<Gradients> mixed{all[0]};
        for (const std::int64_t i : order) mixed.push_back(all[static_cast<std::size_t>(i) + 1]);
        ASSERT_TRUE(before == summed(mixed, 1)) << round;
    }
}

TEST(GradientSums, of_one_micro_batch_are_its_gradients_bit_for_bit) {
    const auto all = micro_batches(1);
    for (const int world : {1, 3}) {
        const Outcome outcome = summed(all, world);
        for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(outcome.sums[i], all[0][i]));
    }
}

TEST(GradientSums, begin_where_a_bucket_is_complete) {
    const auto all = micro_batches(2);
    for (const Reduction how : {Reduction::exact, Reduction::floating}) {
        as_ranks(2, [&](Ranks& ranks) {
            GradientSum sum(ranks, how, parameters(), 2, &*ways[1]);
            const Gradients& mine = all[static_cast<std::size_t>(ranks.rank())];
            sum.begin();
            sum.ready(0, mine[0]);
            EXPECT_EQ(sum.early_buckets(), 1);
            sum.ready(2, mine[2]);
            EXPECT_EQ(sum.early_buckets(), 2);
            sum.finish({Tensor(), mine[1], Tensor()});
            EXPECT_EQ(sum.early_buckets(), 2);
            EXPECT_TRUE(sum.complete(ranks.gather(sum.report())));
        });
    }
}

TEST(GradientSums, that_are_given_up_end) {
    as_ranks(2, [&](Ranks& ranks) {
        for (const std::size_t come : {0, 1}) {
            GradientSum sum(ranks, Reduction::floating, parameters(), 2, &*ways[1]);
            sum.begin();
            for (std::size_t i = 0; i < come; ++i) sum.ready(1, at::ones({40000}));
        }
        ranks.barrier();
    });
}

TEST(Buckets, hold_as_many_tensors_as_fit) {
    const Buckets found = buckets_of({3, 1, 0, 2}, {10, 20, 30, 5}, 8 * 30);
    EXPECT_EQ(found.order, (std::vector<std::int64_t>{3, 1, 0, 2}));
    using Ranges = std::vector<std::pair<std::int64_t, std::int64_t>>;
    EXPECT_EQ(found.ranges, (Ranges{{0, 2}, {2, 3}, {3, 4}}));
    EXPECT_EQ(buckets_of({0, 1}, {10, 20}, 1).ranges, (Ranges{{0, 1}, {1, 2}}));
    EXPECT_TRUE(buckets_of({}, {}, 1).ranges.empty());
}

TEST(GradientSums, in_floats_are_near) {
    const auto all = micro_batches(6);
    for (const int world : {1, 2, 4}) {
        const Outcome outcome = summed(all, world, Reduction::floating);
        for (std::size_t i = 0; i < 3; ++i) {
            const Tensor exact = in_doubles(all, i);
            EXPECT_TRUE(at::allclose(outcome.sums[i].to(at::kDouble), exact, 1e-5,
                                     1e-6 * exact.abs().max().item<double>()));
        }
    }
}

TEST(GradientSums, take_their_unit_from_the_first_micro_batch_that_is_not_zero) {
    auto all = micro_batches(6);
    for (const std::size_t m : {0, 1, 2}) all[m][1].zero_();
    all[0][0] = Tensor();
    const Outcome one = summed(all, 1);
    EXPECT_EQ(one.passes, 1);
    for (const int world : {2, 4}) EXPECT_TRUE(one == summed(all, world)) << world;
    EXPECT_TRUE(at::allclose(one.sums[1].to(at::kDouble), in_doubles(all, 1), 1e-6, 1e-4));
}

TEST(GradientSums, are_made_once_more_where_a_micro_batch_is_far_larger_than_the_first) {
    auto all = micro_batches(5);
    all[3][0] *= 1e12;
    const Outcome one = summed(all, 1);
    EXPECT_EQ(one.passes, 2);
    for (const int world : {2, 4}) EXPECT_TRUE(one == summed(all, world)) << world;
    EXPECT_TRUE(at::allclose(one.sums[0].to(at::kDouble), in_doubles(all, 0), 1e-6, 0));
}

TEST(GradientSums, know_everywhere_that_a_number_was_not_finite) {
    for (const double bad : {NAN, INFINITY, -INFINITY}) {
        for (const std::size_t where : {0, 3, 4}) {
            auto all = micro_batches(5);
            all[where][1][39999].fill_(bad);
            for (const int world : {1, 2, 4}) {
                const Outcome outcome = summed(all, world);
                EXPECT_FALSE(outcome.finite) << bad << " in " << where;
                EXPECT_TRUE(outcome.sums.empty());
            }
        }
    }
}

TEST(GradientSums, do_not_overflow) {
    constexpr int count = 1000;
    std::vector<Gradients> all;
    for (int m = 0; m < count; ++m)
        all.push_back({at::full({7, 5}, -3.0), at::full({40000}, m == 0 ? 1.0 : 16000.0), {}});
    const Outcome outcome = summed(all, 1);
    EXPECT_EQ(outcome.passes, 1);
    EXPECT_TRUE(at::equal(outcome.sums[0], at::full({7, 5}, -3000.0)));
    EXPECT_TRUE(at::equal(outcome.sums[1], at::full({40000}, 15984001.0)));
    EXPECT_EQ(outcome.sums[2].abs().max().item<float>(), 0);
}

TEST(Ranks, gather_texts_of_any_length) {
    as_ranks(3, [](Ranks& ranks) {
        for (const std::size_t length : {std::size_t{0}, std::size_t{10}, std::size_t{5000}}) {
            std::string mine(ranks.rank() == 1 ? length : 3, 'x');
            mine += std::to_string(ranks.rank());
            const auto all = ranks.gather(mine);
            ASSERT_EQ(all.size(), 3U);
            EXPECT_EQ(all[static_cast<std::size_t>(ranks.rank())], mine);
            EXPECT_EQ(all[1].size(), length + 1);
        }
        EXPECT_EQ(ranks.from_leader(ranks.leads() ? "one" : "two"), "one");
        EXPECT_EQ(ranks.broadcast(ranks.rank() + 0.5), 0.5);
        EXPECT_EQ(ranks.smallest(7 - ranks.rank()), 5);
        EXPECT_EQ(ranks.local_rank(), ranks.rank());
    });
}

TEST(Ranks, do_what_needs_files_after_rank_0) {
    const core::TestFolder folder;
    as_ranks(3, [&](Ranks& ranks) {
        const auto file = folder.path() / "made";
        const bool there = ranks.leader_first("file", [&] {
            const bool found = std::filesystem::exists(file);
            if (ranks.leads()) std::ofstream(file) << "made";
            return found;
        });
        EXPECT_EQ(there, !ranks.leads());
        ranks.barrier();
    });
}

TEST(Ranks, alone_need_nobody) {
    Ranks& alone = Ranks::alone();
    EXPECT_TRUE(alone.leads() && alone.is_alone());
    EXPECT_EQ(alone.gather("a"), std::vector<std::string>{"a"});
    EXPECT_EQ(alone.from_leader("b"), "b");
    EXPECT_EQ(alone.leader_first("c", [] { return 3; }), 3);
    alone.barrier();
}

}  // namespace
}  // namespace atelier::parallel
