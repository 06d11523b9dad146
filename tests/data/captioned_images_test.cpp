#include "atelier/data/captioned_images.h"

#include <algorithm>
#include <set>

#include "atelier/data/caption_grammar.h"
#include "data/data_fixtures.h"

/// Captions and the pictures that belong to them.
namespace atelier::data {
namespace {

TEST(CaptionGrammar, every_wording_says_its_scene_again) {
    for (const bool held_out : {false, true}) {
        for (const Scene& scene : scenes(held_out)) {
            for (const std::string& caption : wordings(scene)) {
                for (const Attribute& attribute : attributes()) {
                    const auto heard = said(attribute, caption);
                    if (std::string(attribute.name) == "place" && !heard) continue;  // one order of words does not say where
                    EXPECT_EQ(heard, scene.*(attribute.member)) << caption << ": " << attribute.name;
                }
            }
        }
    }
}

TEST(CaptionGrammar, no_two_scenes_share_a_wording_that_says_where) {
    std::set<std::string> seen;
    for (const bool held_out : {false, true}) {
        for (const Scene& scene : scenes(held_out)) {
            for (const std::string& caption : wordings(scene)) {
                if (said(attribute("place"), caption)) { EXPECT_TRUE(seen.insert(caption).second) << caption; }
            }
        }
    }
}

TEST(CaptionGrammar, training_shows_each_value_of_each_attribute_and_none_of_the_held_out_scenes) {
    const auto shown = scenes(false), held_out = scenes(true);
    EXPECT_EQ(shown.size() + held_out.size(), 180);
    for (const Scene& scene : held_out) EXPECT_EQ(std::ranges::count(shown, scene), 0);
    for (const Attribute& attribute : attributes()) {
        for (std::int64_t value = 0; value < attribute.values; ++value) {
            EXPECT_TRUE(std::ranges::any_of(shown, [&](const Scene& scene) { return scene.*(attribute.member) == value; })) << attribute.name << " " << value;
        }
    }
    for (std::int64_t garment = 0; garment < 10; ++garment) {
        EXPECT_EQ(std::ranges::count(held_out, garment, &Scene::garment), 2);
    }
}

TEST(CaptionGrammar, words_within_other_words_are_not_heard) {
    EXPECT_EQ(said(attribute("garment"), "a large white t-shirt on black"), 0);
    EXPECT_EQ(said(attribute("garment"), "a large white shirt on black"), 6);
    EXPECT_EQ(said(attribute("garment"), "two little black ankle boots on white"), 9);
    EXPECT_EQ(said(attribute("garment"), "a large white handbag on black"), 8);
    EXPECT_FALSE(said(attribute("garment"), "a large white elephant on black"));
    EXPECT_FALSE(said(attribute("place"), "a leftover"));
}

TEST(CaptionGrammar, an_attribute_that_there_is_not_is_named_with_the_nearest) {
    EXPECT_TRUE(holds(message_of([] { attribute("colours"); }), "did you mean \"colour\"?"));
}

/// A folder as Debian's dataset-fashion-mnist has it, of ten garments that are grey squares.
class CaptionedImages : public testing::Test {
protected:
    CaptionedImages() {
        Bytes images = big_endian({0x803, 40, 28, 28}), labels = big_endian({0x801, 40});
        for (std::uint8_t i = 0; i < 40; ++i) {
            images = images + Bytes(28 * 28, static_cast<std::uint8_t>(100 + i));
            labels.push_back(i % 10);
        }
        for (const std::string split : {"train", "t10k"}) {
            write_bytes(folder_ / (split + "-images-idx3-ubyte"), images);
            write_bytes(folder_ / (split + "-labels-idx1-ubyte"), labels);
        }
    }

    std::shared_ptr<const Dataset> open(const std::string& attribute = "", const std::string& split = "train") const {
        return open_dataset({.path = "captions:" + attribute + folder_.path().string(), .split = split, .limit = 0});
    }

    TemporaryFolder folder_;
};

TEST_F(CaptionedImages, attributes_are_those_that_the_caption_says) {
    const auto captioned = open();
    for (const Attribute& attribute : attributes()) {
        const auto of_attribute = open(std::string(attribute.name) + ":");
        EXPECT_EQ(of_attribute->classes(), attribute.values);
        EXPECT_TRUE(of_attribute->captions().empty());
        for (std::size_t i = 0; i < 40; ++i) {
            const auto heard = said(attribute, captioned->captions()[static_cast<std::size_t>(captioned->labels()[i])]);
            if (heard) { EXPECT_EQ(*heard, of_attribute->labels()[i]) << i; }
        }
    }
}

TEST_F(CaptionedImages, pictures_show_amount_place_and_colour) {
    const auto captioned = open();
    for (std::int64_t i = 0; i < captioned->size(); ++i) {
        const std::string& caption = captioned->captions()[static_cast<std::size_t>(captioned->labels()[static_cast<std::size_t>(i)])];
        Tensor picture = captioned->samples(std::vector{i})[0][0];
        if (said(attribute("colour"), caption) == 1) picture = -picture;
        const Tensor ink = picture > -0.9;  // the ground is black now
        const std::int64_t pixels = ink.sum().item<std::int64_t>();
        const std::int64_t wanted[]{20 * 20, 12 * 12, 2 * 12 * 12};
        EXPECT_EQ(pixels, wanted[*said(attribute("amount"), caption)]) << caption;
        const auto place = said(attribute("place"), caption);
        const double middle = (at::arange(28, at::kFloat) * ink.sum(0)).sum().item<double>() / static_cast<double>(pixels);
        if (place) { EXPECT_NEAR(middle, 13.5 + (*place - 1) * (said(attribute("amount"), caption) == 0 ? 4 : 7), 1.6) << caption; }
    }
}

TEST_F(CaptionedImages, splits_share_no_scene) {
    const auto train = open(), test = open("", "test");
    const std::set<std::string> seen(train->captions().begin(), train->captions().end());
    std::int64_t shared = 0;
    for (const std::string& caption : test->captions()) shared += seen.contains(caption) && said(attribute("place"), caption);
    EXPECT_EQ(shared, 0);
    EXPECT_NE(train->hash(), test->hash());
}

TEST_F(CaptionedImages, are_the_same_every_time) { EXPECT_EQ(open()->hash(), open()->hash()); }

TEST_F(CaptionedImages, other_images_are_refused) {
    write_bytes(folder_ / "train-images-idx3-ubyte", big_endian({0x803, 40, 8, 8}) + Bytes(40 * 64, 7));
    EXPECT_TRUE(holds(message_of([&] { open(); }), "28x28 grey images in ten classes"));
}

TEST(Captioned, images_are_composed_of_garments_alone) {
    const TemporaryFolder folder;
    const std::string path = "captions:" + folder.path().string();
    EXPECT_FALSE(is_composed(folder.path()));
    EXPECT_FALSE(is_composed(path));  // somebody's own captions
    EXPECT_TRUE(is_captioned(path));
    EXPECT_TRUE(is_composed("captions:garment:" + folder.path().string()));
    std::ofstream(folder.path() / "train-images-idx3-ubyte") << "";
    EXPECT_TRUE(is_composed(path));
}

}  // namespace
}  // namespace atelier::data
