#include "atelier/data/loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include <ATen/Parallel.h>

#include "core/soon.h"
#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

/// Images [1,2,3] whose pixels encode the sample and the column; can be set to fail at a sample.
class NumberedImages final : public Dataset {
public:
    explicit NumberedImages(std::int64_t count) {
        spec_.shape = {1, 2, 3};
        for (std::int64_t i = 0; i < count; ++i) labels_.push_back(i % 3);
    }
    std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
    std::int64_t classes() const override { return 3; }
    Tensor samples(std::span<const std::int64_t> indices) const override {
        Tensor out = at::empty({static_cast<std::int64_t>(indices.size()), 1, 2, 3});
        for (std::size_t n = 0; n < indices.size(); ++n) {
            if (indices[n] == broken) core::fail("sample {} is broken", indices[n]);
            for (std::size_t p = 0; p < 6; ++p)
                out.mutable_data_ptr<float>()[n * 6 + p] =
                    static_cast<float>(10 * indices[n]) + static_cast<float>(p % 3);
        }
        return out;
    }
    const std::vector<std::int64_t>& labels() const override { return labels_; }
    const data::SampleSpec& spec() const override { return spec_; }
    const std::string& hash() const override { return hash_; }

    std::atomic<std::int64_t> broken = -1;

private:
    std::vector<std::int64_t> labels_;
    data::SampleSpec spec_;
    std::string hash_ = "numbered";
};

std::shared_ptr<NumberedImages> numbered(std::int64_t count) {
    return std::make_shared<NumberedImages>(count);
}

LoaderOptions options(std::int64_t batch, std::uint64_t seed = 0) {
    LoaderOptions o;
    o.batch = batch;
    o.seed = seed;
    return o;
}

void expect_equal(const Batch& a, const Batch& b) {
    EXPECT_TRUE(at::equal(a.samples, b.samples));
    EXPECT_EQ(a.labels, b.labels);
}

/// The batches of steps 0 to `count` - 1 of 30 images, asked for in order.
std::vector<Batch> first_batches(std::int64_t count, const LoaderOptions& o) {
    Loader loader(numbered(30), o);
    std::vector<Batch> batches;
    for (std::int64_t step = 0; step < count; ++step) batches.push_back(loader.at(step));
    return batches;
}

TEST(loader, every_epoch_visits_every_sample_once) {
    for (const std::int64_t batch : {1, 4, 7, 10, 23, 40}) {  // also larger than the data set
        const Loader loader(numbered(10), options(batch));
        std::vector<std::int64_t> seen;
        for (std::int64_t step = 0; static_cast<std::int64_t>(seen.size()) < 60; ++step) {
            const auto indices = loader.indices_at(step);
            EXPECT_EQ(static_cast<std::int64_t>(indices.size()), batch);
            seen.insert(seen.end(), indices.begin(), indices.end());
        }
        for (auto epoch = seen.begin(); epoch + 10 <= seen.end(); epoch += 10) {
            std::vector<std::int64_t> sorted(epoch, epoch + 10);
            std::sort(sorted.begin(), sorted.end());
            for (std::int64_t i = 0; i < 10; ++i) EXPECT_EQ(sorted[static_cast<std::size_t>(i)], i);
        }
    }
}

TEST(loader, the_order_is_the_named_stream_of_the_epoch_whatever_the_batch) {
    LoaderOptions o = options(6, 42);
    o.stream = "teacher";
    const Loader loader(numbered(9), o);
    std::vector<std::int64_t> expected, found;
    for (std::uint64_t epoch = 0; epoch < 4; ++epoch) {
        const auto order = core::RandomStream(42, "teacher/order", epoch).permutation(9);
        expected.insert(expected.end(), order.begin(), order.end());
    }
    for (std::int64_t step = 0; step < 6; ++step) {
        const auto indices = loader.indices_at(step);
        found.insert(found.end(), indices.begin(), indices.end());
    }
    EXPECT_EQ(found, expected);
}

TEST(loader, epochs_seeds_and_streams_have_different_orders) {
    const auto first = Loader(numbered(50), options(50)).indices_at(0);
    EXPECT_NE(Loader(numbered(50), options(50)).indices_at(1), first);
    EXPECT_NE(Loader(numbered(50), options(50, 1)).indices_at(0), first);
    LoaderOptions other = options(50);
    other.stream = "real";
    EXPECT_NE(Loader(numbered(50), other).indices_at(0), first);
}

TEST(loader, batches_hold_the_samples_and_labels_of_their_indices) {
    const auto data = numbered(20);
    Loader loader(data, options(8));
    for (std::int64_t step = 0; step < 10; ++step) {
        const auto indices = loader.indices_at(step);
        const Batch batch = loader.at(step);
        EXPECT_TRUE(at::equal(batch.samples, data->samples(indices)));
        for (std::size_t i = 0; i < indices.size(); ++i) EXPECT_EQ(batch.labels[i], indices[i] % 3);
    }
}

TEST(loader, only_the_chosen_samples_are_used) {
    LoaderOptions o = options(5);
    o.indices = {3, 17, 4};
    Loader loader(numbered(20), o);
    std::vector<std::int64_t> count(20);
    for (std::int64_t step = 0; step < 6; ++step) {
        for (const std::int64_t i : loader.indices_at(step)) ++count[static_cast<std::size_t>(i)];
    }
    for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(count[i], i == 3 || i == 17 || i == 4 ? 10 : 0);
}

TEST(loader, any_order_of_steps_restarts_and_thread_counts_gives_the_same_batches) {
    LoaderOptions o = options(7, 5);
    o.horizontal_flips = true;
    const std::vector<Batch> expected = first_batches(20, o);
    const int threads = at::get_num_threads();
    for (const int now : {1, 2, 3}) {
        at::set_num_threads(now);
        Loader jumping(numbered(30), o);
        for (const std::int64_t step : {12, 13, 13, 2, 3, 4, 19, 0, 1, 0, 12}) {
            expect_equal(jumping.at(step), expected[static_cast<std::size_t>(step)]);
        }
    }
    at::set_num_threads(threads);
    for (std::int64_t start = 0; start < 20; start += 3) {
        Loader resumed(numbered(30), o);
        for (std::int64_t step = start; step < 20; ++step)
            expect_equal(resumed.at(step), expected[static_cast<std::size_t>(step)]);
    }
}

TEST(loader, any_number_of_reading_threads_gives_the_same_batches) {
    LoaderOptions o = options(7, 5);
    o.horizontal_flips = true;
    const std::vector<Batch> expected = first_batches(30, o);
    for (const int threads : {2, 3, 8}) {
        o.threads = threads;
        Loader straight(numbered(30), o), jumping(numbered(30), o);
        for (std::int64_t step = 0; step < 30; ++step)
            expect_equal(straight.at(step), expected[static_cast<std::size_t>(step)]);
        for (const std::int64_t step : {12, 13, 15, 2, 3, 3, 10, 0, 1, 2, 5, 4, 29})
            expect_equal(jumping.at(step), expected[static_cast<std::size_t>(step)]);
    }
}

/// Images that are read only when the test lets them, and that remember their memory.
class GatedImages final : public Dataset {
public:
    std::int64_t size() const override { return 12; }
    std::int64_t classes() const override { return 0; }
    Tensor samples(std::span<const std::int64_t> indices) const override {
        std::unique_lock lock(mutex);
        ++begun;
        changed.notify_all();
        changed.wait(lock, [&] { return open; });
        Tensor made = at::full({static_cast<std::int64_t>(indices.size()), 1, 2, 3}, begun);
        memory.insert(made.const_data_ptr());
        kept.push_back(made);  // so that no two batches have the same memory
        return made;
    }
    const std::vector<std::int64_t>& labels() const override { return none_; }
    const data::SampleSpec& spec() const override { return spec_; }
    const std::string& hash() const override { return hash_; }

    void set_open(bool now) {
        const std::lock_guard lock(mutex);
        open = now;
        changed.notify_all();
    }
    int reads() const {
        const std::lock_guard lock(mutex);
        return begun;
    }
    int finished() const {
        const std::lock_guard lock(mutex);
        return static_cast<int>(kept.size());
    }

    mutable std::mutex mutex;
    mutable std::condition_variable changed;
    mutable int begun = 0;
    mutable std::set<const void*> memory;
    mutable std::vector<Tensor> kept;
    bool open = true;

private:
    std::vector<std::int64_t> none_;
    data::SampleSpec spec_{.shape = {1, 2, 3}};
    std::string hash_ = "gated";
};

TEST(loader, each_thread_reads_a_batch_ahead_and_hands_it_over_as_it_was_read) {
    for (const int threads : {1, 3}) {
        LoaderOptions o = options(4);
        o.threads = threads;
        const auto data = std::make_shared<GatedImages>();
        Loader loader(data, o);
        loader.at(0);
        // So many are read, and no more before the next one is asked for.
        ASSERT_TRUE(core::soon([&] { return data->reads() == 1 + threads; }));
        std::set<const void*> used;
        for (std::int64_t step = 1; step < 6; ++step) {
            const Batch batch = loader.at(step);
            EXPECT_TRUE(data->memory.contains(batch.samples.const_data_ptr()));
            used.insert(batch.samples.const_data_ptr());
            ASSERT_TRUE(
                core::soon([&] { return data->reads() == 1 + threads + static_cast<int>(step); }));
        }
        EXPECT_EQ(used.size(), 5U) << "none was read twice";
    }
}

TEST(loader, ends_with_the_batches_that_are_being_read_and_begins_no_other) {
    constexpr int threads = 3;
    LoaderOptions o = options(4);
    o.threads = threads;
    const auto data = std::make_shared<GatedImages>();
    auto loader = std::make_unique<Loader>(data, o);
    loader->at(0);
    ASSERT_TRUE(core::soon([&] { return data->finished() == 1 + threads; }));
    data->set_open(false);
    loader->at(1);
    loader->at(2);
    ASSERT_TRUE(core::soon([&] { return data->reads() == 3 + threads; }));
    std::promise<void> ended;
    std::thread closing([&] {
        loader.reset();
        ended.set_value();
    });
    data->set_open(true);
    const bool prompt =
        ended.get_future().wait_for(std::chrono::minutes(1)) == std::future_status::ready;
    if (!prompt) closing.detach();
    else closing.join();
    ASSERT_TRUE(prompt);
    EXPECT_EQ(data->reads(), 3 + threads);
}

TEST(loader, many_threads_may_ask_concurrently) {
    Loader loader(numbered(30), options(4));
    const Loader reference(numbered(30), options(4));
    std::vector<std::thread> threads;
    std::atomic<int> wrong = 0;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (std::int64_t step = 0; step < 200; ++step) {
                const std::int64_t requested_at = t % 2 == 0 ? step : 200 - step;
                const auto expected = reference.indices_at(requested_at);
                const Batch batch = loader.at(requested_at);
                for (std::size_t i = 0; i < 4; ++i) {
                    if (batch.samples.const_data_ptr<float>()[6 * i] !=
                        static_cast<float>(10 * expected[i]))
                        ++wrong;
                }
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
}

TEST(loader, flips_mirror_about_half_of_the_images_and_nothing_else) {
    LoaderOptions o = options(40, 1);
    o.horizontal_flips = true;
    const auto data = numbered(100);
    Loader loader(data, o);
    int mirrored = 0;
    for (std::int64_t step = 0; step < 25; ++step) {
        const Tensor plain = data->samples(loader.indices_at(step)),
                     found = loader.at(step).samples;
        for (std::int64_t i = 0; i < 40; ++i) {
            const bool is_mirrored = at::equal(found[i], plain[i].flip({2}));
            EXPECT_TRUE(is_mirrored || at::equal(found[i], plain[i]));
            mirrored += is_mirrored;
        }
    }
    EXPECT_NEAR(mirrored, 500, 80);  // 5 standard deviations
}

TEST(loader, errors_while_reading_are_rethrown_and_do_not_persist) {
    const auto data = numbered(10);
    Loader loader(data, options(10));
    loader.at(0);
    data->broken = 4;
    EXPECT_TRUE(holds(message_of([&] {
                          for (std::int64_t step = 1; step < 4; ++step)
                              loader.at(step);  // one batch may already have been read ahead
                      }),
                      "sample 4 is broken"));
    data->broken = -1;
    for (std::int64_t step = 1; step < 4; ++step) {
        try {
            loader.at(step);
        } catch (const core::Error&) {  // at most once a step: read ahead while it was broken
        }
        EXPECT_EQ(loader.at(step).labels.size(), 10U);
    }
}

TEST(loader, a_loader_that_is_never_or_rarely_used_ends) {
    std::promise<void> ended;
    std::thread user([&] {
        for (int i = 0; i < 50; ++i) {
            Loader loader(numbered(10), options(3));
            if (i % 2 == 0) loader.at(i);
        }
        ended.set_value();
    });
    if (ended.get_future().wait_for(std::chrono::minutes(1)) != std::future_status::ready) {
        user.detach();
        FAIL() << "a loader is still waited for";
    }
    user.join();
}

TEST(loader, unlabelled_samples_have_no_labels) {
    const TestFolder folder;
    write_points(folder / "p.safetensors", {0, 1, 2, 3, 4, 5});
    Loader loader(open_dataset({folder / "p.safetensors"}), options(2));
    EXPECT_TRUE(loader.at(0).labels.empty());
    EXPECT_EQ(loader.at(0).samples.sizes(), at::IntArrayRef({2, 2}));
}

TEST(loader, invalid_options_are_rejected) {
    EXPECT_THROW(Loader(numbered(10), options(0)), core::Error);
    EXPECT_THROW(Loader(numbered(0), options(1)), core::Error);
    LoaderOptions nobody = options(1);
    nobody.threads = 0;
    EXPECT_THROW(Loader(numbered(10), nobody), core::Error);
    LoaderOptions beyond = options(1), flips = options(1);
    beyond.indices = {0, 10};
    EXPECT_THROW(Loader(numbered(10), beyond), core::Error);
    flips.horizontal_flips = true;
    EXPECT_THROW(Loader(open_dataset({"toy:ring"}), flips), core::Error);
    EXPECT_THROW(Loader(numbered(10), options(1)).at(-1), core::Error);
}

TEST(loader, pace_counts_what_was_read_and_used) {
    Loader loader(numbered(10), options(4));
    EXPECT_EQ(loader.throughput().batches, 0);
    for (std::int64_t step = 0; step < 5; ++step) loader.at(step);
    const Throughput throughput = loader.throughput();
    EXPECT_EQ(throughput.batches, 5);
    EXPECT_EQ(throughput.samples_used, 16) << "the first one starts the clock";
    EXPECT_GE(throughput.samples_read, 12);
    EXPECT_GT(throughput.reading_seconds, 0);
    EXPECT_GT(throughput.seconds, 0);
    EXPECT_LE(throughput.waited_seconds, throughput.seconds);
}

}  // namespace
}  // namespace atelier::data
