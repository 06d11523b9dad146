#include "atelier/data/pair_store.h"

#include <unistd.h>

#include <fstream>
#include <stdexcept>

#include "atelier/backends/torch/parameters.h"
#include "atelier/core/json_file.h"
#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

namespace fs = std::filesystem;

/// Pair i: all its elements are derived from i.
Pairs numbered_pairs(std::int64_t first, std::int64_t n) {
    const Tensor numbers = at::arange(first, first + n, at::kFloat).view({n, 1, 1, 1});
    Pairs pairs{numbers.expand({n, 1, 2, 3}), -numbers.expand({n, 1, 2, 3}), {}};
    for (std::int64_t i = first; i < first + n; ++i) pairs.labels.push_back(i % 4);
    return pairs;
}

/// Ten pairs in shards of four; records the requests to the maker and the progress.
class PairStoreFolder : public ::testing::Test {
protected:
    using Request = std::pair<std::int64_t, std::int64_t>;

    void write(std::int64_t broken_at = -1) {
        requested.clear();
        done.clear();
        write_pairs(
            path, plan,
            [&](std::int64_t first, std::int64_t n) {
                if (first == broken_at) throw std::runtime_error("interrupted");
                requested.emplace_back(first, n);
                return numbered_pairs(first, n);
            },
            [&](std::int64_t so_far) { done.push_back(so_far); });
    }

    fs::path shard(int index) const {
        return path / ("shard-0000" + std::to_string(index) + ".safetensors");
    }

    void expect_refused(const std::string& file, const std::string& says,
                        const std::string& teacher = "") const {
        const std::string message = message_of([&] { PairStore(path, teacher); });
        EXPECT_TRUE(holds(message, (file.empty() ? path : path / file).string())) << message;
        EXPECT_TRUE(holds(message, says)) << message;
        EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 0) << message;
    }

    template <class Change>
    void change_shard(int index, Change change) const {
        backends::Parameters tensors = backends::read_parameters(shard(index), true);
        change(tensors);
        backends::write_parameters(shard(index), tensors);
    }

    TestFolder folder;
    fs::path path = folder / "pairs";
    PairSpec plan{10, 4, {1, 2, 3}, "hash of the teacher", {{"method", "heun"}}};
    std::vector<Request> requested;
    std::vector<std::int64_t> done;
};

TEST_F(PairStoreFolder, comes_back_as_it_was_made_shard_by_shard) {
    write();
    EXPECT_EQ(requested, (std::vector<Request>{{0, 4}, {4, 4}, {8, 2}}));
    EXPECT_EQ(done, (std::vector<std::int64_t>{4, 8, 10}));
    const PairStore store(path, "hash of the teacher");
    ASSERT_EQ(store.size(), 10);
    const Pairs expected = numbered_pairs(0, 10), all = store.at({0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
    EXPECT_EQ(store.labels(), expected.labels);
    EXPECT_EQ(all.labels, expected.labels);
    EXPECT_TRUE(at::equal(all.noise, expected.noise));
    EXPECT_TRUE(at::equal(all.samples, expected.samples));
    EXPECT_EQ(core::read_json(path / "manifest.json").at("sampler").at("method"), "heun");
}

TEST_F(PairStoreFolder, gives_pairs_in_the_requested_order_as_often_as_requested) {
    write();
    const Pairs chosen = PairStore(path, "").at({9, 0, 4, 4, 3});
    EXPECT_EQ(chosen.labels, (std::vector<std::int64_t>{1, 0, 0, 0, 3}));
    EXPECT_EQ(chosen.noise.sizes(), at::IntArrayRef({5, 1, 2, 3}));
    for (const auto& [row, number] : {std::pair{0, 9}, {1, 0}, {2, 4}, {3, 4}, {4, 3}}) {
        EXPECT_TRUE(at::equal(chosen.noise[row], at::full({1, 2, 3}, static_cast<double>(number))))
            << row;
        EXPECT_TRUE(
            at::equal(chosen.samples[row], at::full({1, 2, 3}, static_cast<double>(-number))))
            << row;
    }
}

/// Resident memory of this process, in bytes.
std::int64_t resident() {
    std::ifstream statm("/proc/self/statm");
    std::int64_t all = 0, pages = 0;
    statm >> all >> pages;
    return pages * ::sysconf(_SC_PAGESIZE);
}

TEST_F(PairStoreFolder, a_store_larger_than_memory_should_be_is_mapped_not_read) {
    // Three gigabytes of pairs as a sparse file: a header, and a length.
    constexpr std::int64_t count = 30000, each = 16384;
    plan = {count, each, {3, 64, 64}, "hash", {{"method", "heun"}}};
    fs::create_directories(path);
    std::vector<std::int64_t> rows{each, count - each};
    for (int i = 0; i < 2; ++i) {
        const std::int64_t n = rows[static_cast<std::size_t>(i)], labels = n * 8,
                           pixels = n * 3 * 64 * 64 * 4;
        nlohmann::json header{
            {"labels", {{"dtype", "I64"}, {"shape", {n}}, {"data_offsets", {0, labels}}}},
            {"noise",
             {{"dtype", "F32"},
              {"shape", {n, 3, 64, 64}},
              {"data_offsets", {labels, labels + pixels}}}},
            {"samples",
             {{"dtype", "F32"},
              {"shape", {n, 3, 64, 64}},
              {"data_offsets", {labels + pixels, labels + 2 * pixels}}}}};
        std::string text = header.dump();
        text.append((8 - text.size() % 8) % 8, ' ');
        const auto length = static_cast<std::uint64_t>(text.size());
        std::ofstream(shard(i), std::ios::binary).write(reinterpret_cast<const char*>(&length), 8)
            << text;
        fs::resize_file(shard(i), 8 + text.size() + static_cast<std::size_t>(labels + 2 * pixels));
    }
    core::write_json(path / "manifest.json", {{"count", count},
                                              {"shard", each},
                                              {"shape", {3, 64, 64}},
                                              {"teacher_hash", "hash"},
                                              {"sampler", nullptr}});
    const std::int64_t before = resident();
    const PairStore store(path, "hash");
    EXPECT_EQ(store.size(), count);
    EXPECT_EQ(store.at({0, each, count - 1}).samples.sizes(), at::IntArrayRef({3, 3, 64, 64}));
    EXPECT_LT(resident() - before, std::int64_t{64} << 20);
}

TEST_F(PairStoreFolder, an_interrupted_write_continues_where_it_stopped) {
    EXPECT_THROW(write(4), std::runtime_error);
    EXPECT_EQ(requested, (std::vector<Request>{{0, 4}}));
    expect_refused("", "no finished pairs");
    const auto first_written = fs::last_write_time(shard(0));
    write();
    EXPECT_EQ(requested, (std::vector<Request>{{4, 4}, {8, 2}}));
    EXPECT_EQ(done, (std::vector<std::int64_t>{4, 8, 10}))
        << "what was there already counts as progress";
    EXPECT_EQ(fs::last_write_time(shard(0)), first_written);
    EXPECT_TRUE(at::equal(PairStore(path, "").at({2, 7, 9}).noise,
                          at::cat({numbered_pairs(2, 1).noise, numbered_pairs(7, 1).noise,
                                   numbered_pairs(9, 1).noise})));
}

TEST_F(PairStoreFolder, a_finished_write_called_again_makes_nothing) {
    write();
    write();
    EXPECT_TRUE(requested.empty());
}

TEST_F(PairStoreFolder, a_store_that_is_not_there_says_how_to_make_it) {
    expect_refused("", "atelier pairs CONFIG");
}

TEST_F(PairStoreFolder, pairs_of_another_teacher_are_refused) {
    write();
    EXPECT_NO_THROW(PairStore(path, ""));
    expect_refused("manifest.json", "another teacher", "hash of another");
}

TEST_F(PairStoreFolder, an_interrupted_write_does_not_continue_with_another_teacher) {
    EXPECT_THROW(write(8), std::runtime_error);
    plan.teacher_hash = "hash of another";
    const std::string message = message_of([&] { write(); });
    EXPECT_TRUE(holds(message, shard(0).string()) && holds(message, "another teacher")) << message;
    EXPECT_FALSE(fs::exists(shard(2)));
}

TEST_F(PairStoreFolder, a_shard_from_another_teachers_store_is_named) {
    write();
    backends::write_parameters(shard(1), backends::read_parameters(shard(1), true),
                               {{"teacher_hash", "hash of another"}});
    expect_refused(shard(1).filename().string(), "another teacher");
}

TEST_F(PairStoreFolder, a_count_that_the_shards_do_not_hold_is_refused) {
    write();
    for (const auto& [count, file] : {std::pair{9, 2}, {11, 2}, {7, 1}, {13, 2}, {1, 0}}) {
        SCOPED_TRACE(count);
        auto manifest = core::read_json(path / "manifest.json");
        manifest["count"] = count;
        core::write_json(path / "manifest.json", manifest);
        expect_refused(shard(file).filename().string(), "make the pairs again");
    }
}

TEST_F(PairStoreFolder, a_missing_shard_is_named) {
    write();
    fs::remove(shard(1));
    expect_refused(shard(1).filename().string(), "");
}

TEST_F(PairStoreFolder, pairs_of_another_size_are_refused) {
    write();
    auto manifest = core::read_json(path / "manifest.json");
    manifest["shape"] = {1, 3, 2};
    core::write_json(path / "manifest.json", manifest);
    expect_refused(shard(0).filename().string(), "\"noise\" must be float32 [4,1,3,2]");
}

TEST_F(PairStoreFolder, a_tensor_that_is_missing_or_of_another_type_or_size_is_named) {
    write();
    const auto good = backends::read_parameters(shard(1), true);
    const auto expect_named = [&](const std::string& name, const Tensor& tensor) {
        change_shard(1, [&](backends::Parameters& tensors) { tensors.set(name, tensor); });
        expect_refused(shard(1).filename().string(), "\"" + name + "\" must be");
        backends::write_parameters(shard(1), good);
    };
    expect_named("noise", good.at("noise").narrow(0, 0, 3));
    expect_named("noise", good.at("noise").to(at::kHalf));
    expect_named("samples", at::zeros({4, 1, 2, 4}));
    expect_named("samples", at::zeros({4, 6}));
    expect_named("labels", at::zeros({5}, at::kLong));
    expect_named("labels", at::zeros({4}));
    backends::write_parameters(shard(1), backends::Parameters({{"noise", good.at("noise")},
                                                               {"samples", good.at("samples")}}));
    expect_refused(shard(1).filename().string(), "\"labels\" must be");
}

TEST_F(PairStoreFolder, is_finished_by_the_process_that_finds_all_shards) {
    const auto write_own = [&](const core::Shard& mine) {
        requested.clear();
        done.clear();
        return write_pairs(
            path, plan,
            [&](std::int64_t first, std::int64_t n) {
                requested.emplace_back(first, n);
                return numbered_pairs(first, n);
            },
            [&](std::int64_t so_far) { done.push_back(so_far); }, mine);
    };
    EXPECT_FALSE(write_own({0, 2}));
    EXPECT_EQ(requested, (std::vector<Request>{{0, 4}, {8, 2}}));
    EXPECT_EQ(done, (std::vector<std::int64_t>{4, 6}));
    EXPECT_EQ(plan.pairs_of({0, 2}), 6);
    EXPECT_FALSE(fs::exists(path / "manifest.json"));
    EXPECT_TRUE(write_own({1, 2}));
    EXPECT_EQ(requested, (std::vector<Request>{{4, 4}}));
    EXPECT_EQ(PairStore(path, "hash of the teacher").size(), 10);
    EXPECT_TRUE(write_own({0, 2})) << "again";
    EXPECT_EQ(requested, (std::vector<Request>{}));
    EXPECT_TRUE(write_own({6, 7})) << "there are fewer files than shards";
}

}  // namespace
}  // namespace atelier::data
