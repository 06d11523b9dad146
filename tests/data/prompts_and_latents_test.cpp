#include "atelier/core/image_file.h"
#include "atelier/data/latents.h"
#include "atelier/data/shards.h"
#include "backends/tensors.h"
#include "data/data_fixtures.h"

namespace atelier::data {
namespace {

void write_text(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

std::string prompts_path(const TestFolder& folder) {
    return "prompts:" + (folder / "prompts.txt").string();
}

core::Image small_picture(std::uint64_t seed) { return {4, 4, 3, random_bytes(48, seed)}; }

backends::Parameters numbered(std::int64_t first, std::int64_t count) {
    const Tensor rows = at::arange(first, first + count, at::kFloat);
    return backends::Parameters({{"mean", rows.unsqueeze(1).expand({count, 3}).contiguous()},
                                 {"deviation", at::zeros({count, 3}, at::kHalf)}});
}

}  // namespace

TEST(PromptList, lines_are_captions_and_labels_number_them) {
    const TestFolder folder;
    write_text(folder / "prompts.txt", "a cat\r\n\nein H\xc3\xbcndchen");
    const auto data = open_dataset({prompts_path(folder)});
    EXPECT_EQ(data->captions(), (std::vector<std::string>{"a cat", "", "ein H\xc3\xbcndchen"}));
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{0, 1, 2}));
    EXPECT_EQ(data->classes(), 3);
    EXPECT_FALSE(data->has_samples());
    EXPECT_NE(
        message_of([&] { data->samples(std::vector<std::int64_t>{0}); }).find("prompts alone"),
        std::string::npos);
    EXPECT_EQ(open_dataset({prompts_path(folder), "train", 1})->size(), 1);
}

TEST(PromptList, a_byte_order_mark_is_no_part_of_the_first_prompt) {
    const TestFolder folder;
    write_text(folder / "prompts.txt",
               "\xef\xbb\xbf"
               "a cat\na dog\n");
    EXPECT_EQ(open_dataset({prompts_path(folder)})->captions(),
              (std::vector<std::string>{"a cat", "a dog"}));
}

TEST(PromptList, what_is_not_a_list_of_prompts_is_named) {
    const TestFolder folder;
    EXPECT_NE(message_of([&] { open_dataset({prompts_path(folder)}); }).find("prompts.txt"),
              std::string::npos);
    write_text(folder / "prompts.txt", "");
    EXPECT_NE(message_of([&] { open_dataset({prompts_path(folder)}); }).find("holds no prompt"),
              std::string::npos);
    write_text(folder / "prompts.txt", "fine\ncaf\xe9\n");
    EXPECT_NE(message_of([&] {
                  open_dataset({prompts_path(folder)});
              }).find("prompts.txt:2: is not UTF-8"),
              std::string::npos);
    write_text(folder / "prompts.txt", std::string("\xff\xfe"
                                                   "a\0",
                                                   4));
    EXPECT_NE(
        message_of([&] { open_dataset({prompts_path(folder)}); }).find("prompts.txt: is UTF-16"),
        std::string::npos);
}

TEST(CaptionedFolder, images_have_the_captions_beside_them) {
    const TestFolder folder;
    core::write_png(folder / "b.png", small_picture(1));
    core::write_png(folder / "a.png", small_picture(2));
    write_text(folder / "a.txt", "a red square\n");
    write_text(folder / "b.txt", "a red square");
    const auto data = open_dataset({folder.path()});
    EXPECT_EQ(data->captions(), (std::vector<std::string>{"a red square", "a red square"}));
    EXPECT_EQ(data->labels(), (std::vector<std::int64_t>{0, 1}));
    EXPECT_EQ(data->samples(std::vector<std::int64_t>{1}).sizes().vec(),
              (graph::Shape{1, 3, 4, 4}));
    const std::string before = data->hash();
    write_text(folder / "b.txt", "a blue square");
    EXPECT_NE(open_dataset({folder.path()})->hash(), before);
    std::filesystem::remove(folder / "b.txt");
    EXPECT_NE(
        message_of([&] {
            open_dataset({folder.path()});
        }).find("1 of 2 images have no caption, or an empty one: " + (folder / "b.png").string()),
        std::string::npos);
    write_text(folder / "b.txt", "\n");
    EXPECT_NE(
        message_of([&] {
            open_dataset({folder.path()});
        }).find("1 of 2 images have no caption, or an empty one: " + (folder / "b.png").string()),
        std::string::npos);
}

TEST(Shards, rows_come_back_from_whichever_shard_they_lie_in) {
    const TestFolder folder;
    const ShardSpec shard_spec{7, 3, {{"data", "x"}}};
    std::vector<std::int64_t> progress;
    EXPECT_FALSE(shards_complete(folder.path(), shard_spec));
    write_shards(folder.path(), shard_spec, numbered,
                 [&](std::int64_t done) { progress.push_back(done); });
    EXPECT_EQ(progress, (std::vector<std::int64_t>{3, 6, 7}));
    EXPECT_TRUE(shards_complete(folder.path(), shard_spec));
    const Shards shards(folder.path(), shard_spec);
    const Tensor rows = shards.rows("mean", std::vector<std::int64_t>{6, 0, 4});
    EXPECT_TRUE(rows.select(1, 0).equal(at::tensor({6.0F, 0.0F, 4.0F})));
    EXPECT_EQ(shards.rows("deviation", std::vector<std::int64_t>{1}).scalar_type(), at::kFloat);
    EXPECT_NE(
        message_of([&] { shards.rows("mean", std::vector<std::int64_t>{7}); }).find("no row 7"),
        std::string::npos);
    EXPECT_NE(
        message_of([&] { shards.rows("variance", std::vector<std::int64_t>{0}); }).find("variance"),
        std::string::npos);
}

TEST(Shards, only_what_is_missing_or_of_other_origin_is_made) {
    const TestFolder folder;
    const ShardSpec shard_spec{7, 3, {{"data", "x"}}};
    const auto written_shards = [&](const ShardSpec& requested) {
        std::vector<std::int64_t> firsts;
        write_shards(
            folder.path(), requested,
            [&](std::int64_t first, std::int64_t count) {
                firsts.push_back(first);
                return numbered(first, count);
            },
            [](std::int64_t) {});
        return firsts;
    };
    EXPECT_EQ(written_shards(shard_spec), (std::vector<std::int64_t>{0, 3, 6}));
    std::filesystem::remove(folder / "shard-00001.safetensors");
    EXPECT_NE(message_of([&] { Shards(folder.path(), shard_spec); }).find("shard-00001"),
              std::string::npos);
    EXPECT_EQ(written_shards(shard_spec), (std::vector<std::int64_t>{3}));
    EXPECT_EQ(written_shards({7, 3, {{"data", "y"}}}), (std::vector<std::int64_t>{0, 3, 6}));
}

TEST(Shards, one_with_other_tensors_is_refused) {
    const TestFolder folder;
    const ShardSpec shard_spec{2, 1, {}};
    write_shards(
        folder.path(), shard_spec,
        [](std::int64_t first, std::int64_t count) {
            return backends::Parameters({{"mean", at::zeros({count, first + 1})}});
        },
        [](std::int64_t) {});
    EXPECT_NE(message_of([&] { Shards(folder.path(), shard_spec); }).find("shard-00001"),
              std::string::npos);
}

TEST(Latents, are_drawn_once_from_the_distributions_in_the_shards) {
    const TestFolder folder;
    write_text(folder / "prompts.txt", "a\nb\nc\nd");
    const ShardSpec shard_spec{4, 2, {}};
    write_shards(
        folder / "shards", shard_spec,
        [](std::int64_t first, std::int64_t count) {
            const Tensor like = at::full({count, 1, 50, 50}, static_cast<double>(first));
            return backends::Parameters({{"mean", like}, {"deviation", at::full_like(like, 0.5)}});
        },
        [](std::int64_t) {});
    data::SampleSpec spec;
    spec.kind = data::SampleSpec::Kind::latent;
    spec.shape = {1, 50, 50};
    const auto prompts = open_dataset({prompts_path(folder)});
    const Latents data(prompts, spec, Shards(folder / "shards", shard_spec));
    EXPECT_TRUE(data.has_samples());
    const Tensor samples = data.samples(std::vector<std::int64_t>{3, 0});
    EXPECT_NEAR(samples[0].mean().item<double>(), 2, 0.05);
    EXPECT_NEAR(samples[1].std().item<double>(), 0.5, 0.05);
    EXPECT_TRUE(data.samples(std::vector<std::int64_t>{0})[0].equal(samples[1]));
    EXPECT_FALSE(Latents(prompts, spec, std::nullopt).has_samples());
}

}  // namespace atelier::data
