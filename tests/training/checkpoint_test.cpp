#include "atelier/training/checkpoint.h"

#include <bit>
#include <cmath>
#include <cstdlib>

#include "atelier/core/atomic_file.h"

#include "training/training_fixtures.h"

namespace atelier::training {
namespace {

namespace fs = std::filesystem;

Checkpoint checkpoint_at(std::int64_t step) {
    Checkpoint checkpoint;
    checkpoint.step = step;
    checkpoint.tensors = backends::Parameters(
        {{"model/weights/w", values_of("w", step, {2, 3})},
         {"model/updates", at::full({}, static_cast<double>(step), at::kFloat)}});
    checkpoint.scalars = {{"seconds", 0.1 * static_cast<double>(step)}, {"stage/running", 1.0 / 3}};
    return checkpoint;
}

bool same(const Checkpoint& a, const Checkpoint& b) {
    return a.step == b.step && a.scalars == b.scalars &&
           backends::hash_of(a.tensors) == backends::hash_of(b.tensors);
}

/// A folder with checkpoints of steps 10 and 20, and the warnings on reading them.
class DamagedCheckpoints : public ::testing::Test {
protected:
    DamagedCheckpoints() : checkpoints(folder / "checkpoints", 3) {
        checkpoints.save(checkpoint_at(10));
        checkpoints.save(checkpoint_at(20));
        newest = checkpoints.latest_path();
        bytes = core::read_text(newest);
    }

    std::optional<Checkpoint> latest() {
        testing::internal::CaptureStderr();
        auto found = checkpoints.latest();
        warnings = testing::internal::GetCapturedStderr();
        return found;
    }

    /// If the newest is damaged, the previous one is read, and a warning names the damaged one.
    void expect_the_one_before() {
        const auto found = latest();
        ASSERT_TRUE(found.has_value());
        EXPECT_TRUE(same(*found, checkpoint_at(10)));
        core::expect_contains(warnings, newest.string());
    }

    core::TestFolder folder;
    CheckpointFolder checkpoints;
    fs::path newest;
    std::string bytes, warnings;
};

TEST(Checkpoint, is_read_back_with_the_same_bits) {
    const core::TestFolder folder;
    Checkpoint saved = checkpoint_at(123456789012);
    saved.tensors.set("double", at::full({3}, 0.1, at::kDouble));
    saved.tensors.set("half", at::full({2}, 0.1, at::kBFloat16));
    saved.tensors.set("whole", at::full({2}, std::int64_t{1} << 62, at::kLong));
    saved.tensors.set("none", at::empty({0, 4}));
    saved.tensors.set("odd",
                      at::tensor({std::nanf(""), -0.0F, std::numeric_limits<float>::denorm_min()}));
    saved.scalars = {{"third", 1.0 / 3},
                     {"tiny", std::numeric_limits<double>::denorm_min()},
                     {"minus zero", -0.0},
                     {"largest", std::numeric_limits<double>::max()},
                     {"best/\"quoted\"", 0.1 + 0.2},
                     {"infinite", -std::numeric_limits<double>::infinity()}};
    saved.scalars["nothing measured"] = std::numeric_limits<double>::quiet_NaN();
    const CheckpointFolder checkpoints(folder / "a/b");
    checkpoints.save(saved);
    const auto read = checkpoints.latest();
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->step, saved.step);
    expect_same_bits(read->tensors, saved.tensors);
    ASSERT_EQ(read->scalars.size(), saved.scalars.size());
    for (const auto& [name, number] : saved.scalars) {
        const double found = read->scalars.at(name);
        if (std::isnan(number)) {
            EXPECT_TRUE(std::isnan(found)) << name;
        } else {
            EXPECT_EQ(std::bit_cast<std::uint64_t>(found), std::bit_cast<std::uint64_t>(number))
                << name;
        }
    }
}

TEST(Checkpoint, only_the_newest_are_kept) {
    const core::TestFolder folder;
    const CheckpointFolder checkpoints(folder.path(), 3);
    for (const std::int64_t step : {2, 9, 10, 100, 1000})
        checkpoints.save(checkpoint_at(step));  // not in lexicographic order
    EXPECT_EQ(folder.entries(), 3U);
    EXPECT_EQ(checkpoints.latest()->step, 1000);
    for (const std::int64_t step : {1000, 100}) {
        EXPECT_EQ(checkpoints.latest()->step, step);
        fs::remove(checkpoints.latest_path());
    }
    EXPECT_EQ(checkpoints.latest()->step, 10);
}

TEST(Checkpoint, an_empty_or_missing_folder_has_none) {
    const core::TestFolder folder;
    for (const fs::path& path : {folder.path(), folder / "missing"}) {
        const CheckpointFolder checkpoints(path);
        EXPECT_FALSE(checkpoints.latest().has_value());
        EXPECT_TRUE(checkpoints.latest_path().empty());
    }
}

TEST(Checkpoint, clear_removes_all) {
    const core::TestFolder folder;
    const CheckpointFolder checkpoints(folder / "checkpoints");
    checkpoints.save(checkpoint_at(1));
    checkpoints.clear();
    EXPECT_FALSE(checkpoints.latest().has_value());
    EXPECT_EQ(folder.entries(), 0U);
}

TEST(Checkpoint, other_files_are_ignored) {
    const core::TestFolder folder;
    const CheckpointFolder checkpoints(folder.path(), 1);
    core::write_text(folder / "step-notes.txt", "mine");
    core::write_text(folder / "zz.safetensors", "mine too");
    checkpoints.save(checkpoint_at(1));
    EXPECT_EQ(checkpoints.latest()->step, 1);
    EXPECT_EQ(folder.entries(), 3U);
}

TEST(Checkpoint, one_without_a_metadata_checksum_is_still_read) {
    const core::TestFolder folder;
    const Checkpoint old = checkpoint_at(8);
    backends::write_parameters(folder / "step-000000000008.safetensors", old.tensors,
                               {{"step", "8"},
                                {"sha256", backends::hash_of(old.tensors)},
                                {"number/seconds", "0x1.999999999999ap-1"},
                                {"number/stage/running", "0x1.5555555555555p-2"}});
    const auto read = CheckpointFolder(folder.path()).latest();
    ASSERT_TRUE(read.has_value());
    EXPECT_TRUE(same(*read, old));
}

TEST_F(DamagedCheckpoints, the_previous_one_is_used_when_the_newest_is_truncated_anywhere) {
    for (std::size_t length = 0; length < bytes.size(); length += 1 + bytes.size() / 60) {
        SCOPED_TRACE(length);
        core::write_text(newest, bytes.substr(0, length));
        expect_the_one_before();
    }
}

TEST_F(DamagedCheckpoints, no_flipped_byte_gives_a_checkpoint_that_was_never_saved) {
    std::size_t refused = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        std::string damaged = bytes;
        damaged[i] = static_cast<char>(damaged[i] ^ 0x01);  // a digit stays a digit
        core::write_text(newest, damaged);
        const auto found = latest();
        ASSERT_TRUE(found.has_value()) << i;
        ASSERT_TRUE(same(*found, checkpoint_at(10)) || same(*found, checkpoint_at(20)))
            << "byte " << i << " of " << bytes;
        refused += found->step == 10;
    }
    EXPECT_GT(refused, bytes.size() * 9 / 10);
}

TEST_F(DamagedCheckpoints, a_file_that_is_not_a_checkpoint_is_skipped) {
    backends::write_parameters(newest, checkpoint_at(20).tensors);
    expect_the_one_before();
    core::expect_contains(warnings, "not a checkpoint");
}

TEST_F(DamagedCheckpoints, nothing_is_found_when_all_are_damaged) {
    for (const auto& entry : fs::directory_iterator(folder / "checkpoints"))
        core::write_text(entry.path(), "damaged");
    EXPECT_FALSE(latest().has_value());
}

TEST_F(DamagedCheckpoints, a_damaged_one_does_not_displace_a_good_one) {
    core::write_text(newest, "damaged");
    const CheckpointFolder only_one(folder / "checkpoints", 1);
    only_one.save(checkpoint_at(15));  // the run resumed from step 10
    const auto found = latest();
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->step, 15);
    EXPECT_EQ(only_one.latest_path().filename(), "step-000000000015.safetensors");
}

}  // namespace
}  // namespace atelier::training
