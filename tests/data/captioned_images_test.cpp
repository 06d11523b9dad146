#include "atelier/data/captioned_images.h"

#include <algorithm>
#include <set>

#include "atelier/data/caption_grammar.h"
#include "data/data_fixtures.h"

/// Captions and their images.
namespace atelier::data {
namespace {

TEST(CaptionGrammar, every_wording_describes_its_scene) {
    for (const bool held_out : {false, true}) {
        for (const Scene& scene : scenes(held_out)) {
            for (const std::string& caption : wordings(scene)) {
                for (const Attribute& attribute : attributes()) {
                    const auto found = attribute_in_caption(attribute, caption);
                    if (std::string(attribute.name) == "place" && !found)
                        continue;  // one word order does not state the place
                    EXPECT_EQ(found, scene.*(attribute.member))
                        << caption << ": " << attribute.name;
                }
            }
        }
    }
}

TEST(CaptionGrammar, no_two_scenes_share_a_wording_that_states_the_place) {
    std::set<std::string> seen;
    for (const bool held_out : {false, true}) {
        for (const Scene& scene : scenes(held_out)) {
            for (const std::string& caption : wordings(scene)) {
                if (attribute_in_caption(attribute("place"), caption)) {
                    EXPECT_TRUE(seen.insert(caption).second) << caption;
                }
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
            EXPECT_TRUE(std::ranges::any_of(
                shown, [&](const Scene& scene) { return scene.*(attribute.member) == value; }))
                << attribute.name << " " << value;
        }
    }
    for (std::int64_t garment = 0; garment < 10; ++garment) {
        EXPECT_EQ(std::ranges::count(held_out, garment, &Scene::garment), 2);
    }
}

TEST(CaptionGrammar, words_within_other_words_are_not_matched) {
    EXPECT_EQ(attribute_in_caption(attribute("garment"), "a large white t-shirt on black"), 0);
    EXPECT_EQ(attribute_in_caption(attribute("garment"), "a large white shirt on black"), 6);
    EXPECT_EQ(attribute_in_caption(attribute("garment"), "two little black ankle boots on white"),
              9);
    EXPECT_EQ(attribute_in_caption(attribute("garment"), "a large white handbag on black"), 8);
    EXPECT_FALSE(attribute_in_caption(attribute("garment"), "a large white elephant on black"));
    EXPECT_FALSE(attribute_in_caption(attribute("place"), "a leftover"));
}

TEST(CaptionGrammar, an_unknown_attribute_names_the_nearest) {
    EXPECT_TRUE(holds(message_of([] { attribute("colours"); }), "did you mean \"colour\"?"));
}

/// A folder like that of Debian's dataset-fashion-mnist, with ten garments that are grey squares.
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

    std::shared_ptr<const Dataset> open(const std::string& attribute = "",
                                        const std::string& split = "train") const {
        return open_dataset({.path = "captions:" + attribute + folder_.path().string(),
                             .split = split,
                             .limit = 0});
    }

    TestFolder folder_;
};

TEST_F(CaptionedImages, attributes_are_those_in_the_caption) {
    const auto captioned = open();
    for (const Attribute& attribute : attributes()) {
        const auto of_attribute = open(std::string(attribute.name) + ":");
        EXPECT_EQ(of_attribute->classes(), attribute.values);
        EXPECT_TRUE(of_attribute->captions().empty());
        for (std::size_t i = 0; i < 40; ++i) {
            const auto found = attribute_in_caption(
                attribute, captioned->captions()[static_cast<std::size_t>(captioned->labels()[i])]);
            if (found) {
                EXPECT_EQ(*found, of_attribute->labels()[i]) << i;
            }
        }
    }
}

TEST_F(CaptionedImages, images_show_amount_place_and_colour) {
    const auto captioned = open();
    for (std::int64_t i = 0; i < captioned->size(); ++i) {
        const std::string& caption = captioned->captions()[static_cast<std::size_t>(
            captioned->labels()[static_cast<std::size_t>(i)])];
        Tensor image = captioned->samples(std::vector{i})[0][0];
        if (attribute_in_caption(attribute("colour"), caption) == 1) image = -image;
        const Tensor ink = image > -0.9;  // the background is black now
        const std::int64_t pixels = ink.sum().item<std::int64_t>();
        const std::int64_t expected[]{20 * 20, 12 * 12, 2 * 12 * 12};
        EXPECT_EQ(pixels, expected[*attribute_in_caption(attribute("amount"), caption)]) << caption;
        const auto place = attribute_in_caption(attribute("place"), caption);
        const double middle = (at::arange(28, at::kFloat) * ink.sum(0)).sum().item<double>() /
                              static_cast<double>(pixels);
        if (place) {
            EXPECT_NEAR(
                middle,
                13.5 + (*place - 1) *
                           (attribute_in_caption(attribute("amount"), caption) == 0 ? 4 : 7),
                1.6)
                << caption;
        }
    }
}

TEST_F(CaptionedImages, splits_share_no_scene) {
    const auto train = open(), test = open("", "test");
    const std::set<std::string> seen(train->captions().begin(), train->captions().end());
    std::int64_t shared = 0;
    for (const std::string& caption : test->captions())
        shared += seen.contains(caption) && attribute_in_caption(attribute("place"), caption);
    EXPECT_EQ(shared, 0);
    EXPECT_NE(train->hash(), test->hash());
}

TEST_F(CaptionedImages, are_the_same_every_time) { EXPECT_EQ(open()->hash(), open()->hash()); }

TEST_F(CaptionedImages, other_images_are_refused) {
    write_bytes(folder_ / "train-images-idx3-ubyte",
                big_endian({0x803, 40, 8, 8}) + Bytes(40 * 64, 7));
    EXPECT_TRUE(holds(message_of([&] { open(); }), "28x28 grey images in ten classes"));
}

TEST(Captioned, images_are_composed_of_garments_alone) {
    const TestFolder folder;
    const std::string path = "captions:" + folder.path().string();
    EXPECT_FALSE(is_composed(folder.path()));
    EXPECT_FALSE(is_composed(path));  // captions of the user's own
    EXPECT_TRUE(is_captioned(path));
    EXPECT_TRUE(is_composed("captions:garment:" + folder.path().string()));
    std::ofstream(folder.path() / "train-images-idx3-ubyte") << "";
    EXPECT_TRUE(is_composed(path));
}

}  // namespace
}  // namespace atelier::data
