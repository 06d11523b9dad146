#include "atelier/conditions/prompt_partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>

#include "atelier/core/error.h"
#include "atelier/core/npy_header.h"
#include "atelier/core/random_streams.h"
#include "atelier/core/safetensors.h"
#include "core/test_folder.h"

namespace atelier::conditions {
namespace {

namespace fs = std::filesystem;

class PromptPartitionTest : public testing::Test {
protected:
    template <class T>
    fs::path npy(const std::string& name, core::DType type, std::int64_t length,
                 const std::vector<T>& numbers, std::size_t cut = 0) {
        const auto rows = static_cast<std::int64_t>(numbers.size()) / length;
        std::string text = core::compose_npy_header({type, {rows, length}}, name);
        text.append(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(T));
        text.resize(text.size() - cut);
        std::ofstream(folder_ / name, std::ios::binary) << text;
        return folder_ / name;
    }

    /// `sizes[k]` rows scattered around axis k of `sizes.size()`.
    fs::path bundles(const std::vector<int>& sizes, double scatter, std::uint64_t seed = 1) {
        core::RandomStream stream(seed, "bundles");
        std::vector<float> numbers;
        for (std::size_t k = 0; k < sizes.size(); ++k) {
            for (int i = 0; i < sizes[k]; ++i) {
                for (std::size_t d = 0; d < sizes.size(); ++d)
                    numbers.push_back(static_cast<float>((d == k) + scatter * stream.normal()));
            }
        }
        return npy("bundles.npy", core::DType::F32, static_cast<std::int64_t>(sizes.size()),
                   numbers);
    }

    core::TestFolder folder_;
};

TEST_F(PromptPartitionTest, rows_of_every_type_are_read_at_unit_length) {
    const std::vector<double> row{3, -4, 0};
    const auto reads_well = [&](const fs::path& path) {
        const Embeddings embeddings(path);
        ASSERT_EQ(embeddings.rows(), 1);
        std::vector<float> out(embeddings.length());
        embeddings.unit_row(0, out);
        EXPECT_NEAR(out[0], 0.6, 1e-7);
        EXPECT_NEAR(out[1], -0.8, 1e-7);
        EXPECT_EQ(out[2], 0);
    };
    reads_well(npy<double>("d.npy", core::DType::F64, 3, row));
    reads_well(npy<float>("f.npy", core::DType::F32, 3, {3, -4, 0}));
    reads_well(npy<std::uint16_t>("h.npy", core::DType::F16, 3, {0x4200, 0xc400, 0x0000}));
    const std::vector<std::uint16_t> brain{0x4040, 0xc080, 0};
    core::write_safetensors(
        folder_ / "b.safetensors",
        {{"embeddings", core::DType::BF16, {1, 3}, std::as_bytes(std::span(brain))}});
    reads_well(folder_ / "b.safetensors");
}

TEST_F(PromptPartitionTest, the_smallest_float16_values_have_a_direction) {
    const Embeddings embeddings(npy<std::uint16_t>("h.npy", core::DType::F16, 2, {0x0001, 0x0000}));
    std::vector<float> out(2);
    embeddings.unit_row(0, out);
    EXPECT_EQ(out, (std::vector<float>{1, 0}));
}

TEST_F(PromptPartitionTest, files_that_are_not_embeddings_are_refused) {
    EXPECT_THROW(Embeddings(folder_ / "absent.npy"), core::Error);
    EXPECT_THROW(Embeddings(npy<float>("cut.npy", core::DType::F32, 2, {1, 2, 3, 4}, 3)),
                 core::Error);
    EXPECT_THROW(Embeddings(npy<float>("header.npy", core::DType::F32, 2, {1, 2}, 20)),
                 core::Error);
    EXPECT_THROW(Embeddings(npy<std::int64_t>("whole.npy", core::DType::I64, 2, {1, 2})),
                 core::Error);
    const std::vector<float> flat{1, 2};
    core::write_safetensors(
        folder_ / "flat.safetensors",
        {{"embeddings", core::DType::F32, {2}, std::as_bytes(std::span(flat))}});
    EXPECT_THROW(Embeddings(folder_ / "flat.safetensors"), core::Error);
    core::write_safetensors(folder_ / "other.safetensors",
                            {{"points", core::DType::F32, {1, 2}, std::as_bytes(std::span(flat))}});
    EXPECT_THROW(Embeddings(folder_ / "other.safetensors"), core::Error);
}

TEST_F(PromptPartitionTest, a_row_without_direction_is_named) {
    const Embeddings embeddings(npy<float>("zero.npy", core::DType::F32, 2, {1, 2, 0, 0, NAN, 1}));
    std::vector<float> out(2);
    for (const std::int64_t row : {1, 2}) {
        try {
            embeddings.unit_row(row, out);
            FAIL() << row;
        } catch (const core::Error& error) {
            EXPECT_NE(std::string(error.what()).find("row " + std::to_string(row)),
                      std::string::npos);
        }
    }
}

TEST_F(PromptPartitionTest, bundles_become_cells_also_where_only_a_sample_is_clustered) {
    const Embeddings embeddings(bundles({4000, 300, 900}, 0.1));
    for (const std::int64_t sample : {100000, 200}) {
        const auto partition =
            partition_prompts(embeddings, {.students = 3, .seed = 5, .sample = sample});
        const PromptSurvey found = survey(partition, embeddings);
        std::multiset<std::int64_t> sizes;
        for (const auto& cell : found.cells) sizes.insert(cell.size);
        EXPECT_EQ(sizes, (std::multiset<std::int64_t>{300, 900, 4000}));
        EXPECT_NEAR(imbalance(found), 4000.0 / 5200 * 3, 1e-9);
    }
}

TEST_F(PromptPartitionTest, the_same_seed_gives_the_same_partition) {
    const Embeddings embeddings(bundles({300, 300, 300, 300}, 0.6));
    const auto hash = [&](std::uint64_t seed, const std::string& method) {
        return partition_prompts(embeddings, {.students = 5, .seed = seed, .method = method})
            .hash();
    };
    for (const std::string& method : prompt_partition_methods())
        EXPECT_EQ(hash(3, method), hash(3, method));
    EXPECT_NE(hash(3, "kmeans"), hash(4, "kmeans"));
    EXPECT_THROW(hash(3, "random"), core::UsageError);
}

TEST_F(PromptPartitionTest, balanced_cells_are_equally_large_for_unseen_rows_too) {
    const Embeddings embeddings(bundles({1500, 300, 200}, 0.35, 1));
    const auto plain = partition_prompts(embeddings, {.students = 3, .seed = 2});
    const auto balanced =
        partition_prompts(embeddings, {.students = 3, .seed = 2, .method = "balanced"});
    EXPECT_GT(imbalance(survey(plain, embeddings)), 1.5);
    EXPECT_LT(imbalance(survey(balanced, embeddings)), 1.03);
    const Embeddings unseen(bundles({1500, 300, 200}, 0.35, 9));
    EXPECT_LT(imbalance(survey(balanced, unseen)), 1.2);
}

TEST_F(PromptPartitionTest, a_survey_agrees_with_the_router_and_with_cosines) {
    const Embeddings embeddings(bundles({50, 60, 70}, 0.5));
    const auto partition =
        partition_prompts(embeddings, {.students = 4, .seed = 1, .method = "balanced"});
    const PromptSurvey found = survey(partition, embeddings);
    std::vector<float> row(embeddings.length());
    std::vector<std::int64_t> sizes(4);
    for (std::int64_t i = 0; i < embeddings.rows(); ++i) {
        embeddings.unit_row(i, row);
        std::vector<double> scores;
        for (std::size_t k = 0; k < 4; ++k) {
            double score = 0, length = 0;
            for (std::size_t d = 0; d < row.size(); ++d) {
                score += static_cast<double>(row[d]) * partition.centroids[k][d];
                length +=
                    static_cast<double>(partition.centroids[k][d]) * partition.centroids[k][d];
            }
            scores.push_back(score / std::sqrt(length) + partition.offsets[k]);
        }
        const auto owner = static_cast<std::size_t>(found.owners[static_cast<std::size_t>(i)]);
        ++sizes[owner];
        for (const double score : scores) EXPECT_LE(score, scores[owner] + 1e-6);
        const double best = scores[owner];
        scores.erase(scores.begin() + static_cast<std::ptrdiff_t>(owner));
        EXPECT_NEAR(found.margins[static_cast<std::size_t>(i)],
                    best - *std::ranges::max_element(scores), 1e-5);
    }
    for (std::size_t k = 0; k < 4; ++k) EXPECT_EQ(found.cells[k].size, sizes[k]);
    for (const auto& cell : found.cells)
        EXPECT_EQ(cell.central.size(),
                  std::min<std::size_t>(5, static_cast<std::size_t>(cell.size)));
}

TEST_F(PromptPartitionTest, one_student_owns_everything_and_has_no_borders) {
    const Embeddings embeddings(bundles({5, 6}, 0.2));
    const PromptSurvey found = survey(partition_prompts(embeddings, {.students = 1}), embeddings);
    EXPECT_EQ(found.cells[0].size, 11);
    EXPECT_EQ(found.borders, (std::vector<std::vector<std::int64_t>>{{0}}));
}

TEST_F(PromptPartitionTest, more_students_than_prompts_are_refused) {
    const Embeddings embeddings(bundles({1, 1}, 0.1));
    EXPECT_THROW(partition_prompts(embeddings, {.students = 3}), core::UsageError);
    EXPECT_THROW(partition_prompts(embeddings, {.students = 0}), core::UsageError);
}

TEST_F(PromptPartitionTest, what_is_written_is_read_and_an_exchanged_file_is_noticed) {
    const Embeddings embeddings(bundles({30, 40, 20}, 0.4));
    PromptPartition partition =
        partition_prompts(embeddings, {.students = 3, .method = "balanced"});
    partition.null_owner = 2;
    partition.encoder = "an encoder";
    const fs::path first = folder_ / "first", second = folder_ / "second";
    fs::create_directories(first);
    fs::create_directories(second);
    write_prompt_partition(first, partition);
    const PromptPartition read = read_prompt_partition(first);
    EXPECT_EQ(read.hash(), partition.hash());
    EXPECT_EQ(read.centroids, partition.centroids);
    EXPECT_EQ(read.null_owner, 2);
    EXPECT_EQ(read.encoder, "an encoder");
    write_prompt_partition(second, partition_prompts(embeddings, {.students = 3, .seed = 1}));
    fs::copy_file(second / "centroids.safetensors", first / "centroids.safetensors",
                  fs::copy_options::overwrite_existing);
    EXPECT_THROW(read_prompt_partition(first), core::Error);
}

}  // namespace
}  // namespace atelier::conditions
