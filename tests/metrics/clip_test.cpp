#include "atelier/metrics/clip.h"

#include <gtest/gtest.h>

#include "atelier/core/error.h"
#include "backends/tensors.h"
#include "core/test_folder.h"

namespace atelier::metrics {
namespace {

namespace fs = std::filesystem;
using core::error_of;

const fs::path golden_clip = ATELIER_SOURCE_DIR "/tests/golden/clip";

/// A small CLIPModel of transformers (scripts/make_clip_golden.py) and its tokenizer.
class ClipGolden : public ::testing::Test {
protected:
    ClipGolden() {
        for (const char* file : {"config.json", "model.safetensors"})
            fs::copy_file(golden_clip / file, folder_ / file);
        for (const auto& file :
             fs::directory_iterator(ATELIER_SOURCE_DIR "/tests/golden/clip_tokenizer"))
            fs::copy_file(file, folder_.path() / file.path().filename(),
                          fs::copy_options::skip_existing);
    }

    Tensor answer(const std::string& name) const { return answers_.at(name); }
    void change_config(const std::string& part, const std::string& key,
                       const nlohmann::json& value) const {
        nlohmann::json config = core::read_json(golden_clip / "config.json");
        (part.empty() ? config : config[part])[key] = value;
        core::write_json(folder_ / "config.json", config);
    }

    core::TestFolder folder_;
    const backends::Parameters answers_ =
        backends::read_parameters(core::SafetensorsFile(golden_clip / "answers.safetensors"), true);
};

TEST_F(ClipGolden, images_and_captions_are_embedded_like_transformers) {
    const Clip clip(folder_.path());
    for (int i = 0; i < 4; ++i)
        EXPECT_LT(backends::relative_distance(clip.embed(answer(fmt::format("seen {}", i))),
                                              answer(fmt::format("image {}", i))),
                  1e-5)
            << i;
    const auto captions =
        core::parse_json(
            core::SafetensorsFile(golden_clip / "answers.safetensors").metadata().at("captions"),
            "answers")
            .get<std::vector<std::string>>();
    EXPECT_LT(backends::relative_distance(clip.texts(captions), answer("texts")), 1e-5);
}

TEST_F(ClipGolden, images_of_any_size_are_preprocessed_like_transformers) {
    const Clip clip(folder_.path());
    for (int i = 0; i < 4; ++i) {
        const Tensor pixels = answer(fmt::format("pixels {}", i)).unsqueeze(0),
                     seen = answer(fmt::format("seen {}", i));
        const Tensor steps = ((clip_preprocess(pixels, 32) - seen).abs() * 255 * 0.2613)
                                 .max();  // 8-bit levels: Pillow rounds its filter weights
        EXPECT_LT(steps.item<double>(), 1.1) << i;
        EXPECT_LT(
            backends::relative_distance(clip.images(pixels), answer(fmt::format("image {}", i))),
            0.02)
            << i;
    }
    const Tensor grey = answer("pixels 1").unsqueeze(0).narrow(3, 0, 1);
    EXPECT_TRUE(
        at::equal(clip_preprocess(grey, 32), clip_preprocess(grey.expand({1, 45, 60, 3}), 32)));
}

TEST_F(ClipGolden, features_are_the_embeddings_before_they_have_length_1) {
    const ClipFeatures space(folder_.path());
    for (int i = 0; i < 4; ++i) {
        const Tensor pixels = answer(fmt::format("pixels {}", i)).unsqueeze(0);
        const Tensor found =
            space.features(pixels.permute({0, 3, 1, 2}).to(at::kFloat) / 127.5 - 1).features;
        ASSERT_EQ(found.sizes(), (std::vector<std::int64_t>{1, space.width()}));
        // Pillow rounds its filter's weights, as in the test above.
        EXPECT_LT(
            backends::relative_distance(found / found.norm(), answer(fmt::format("image {}", i))),
            0.02)
            << i;
        EXPECT_GT((found.norm() - 1).abs().item<double>(), 1e-3) << "not scaled";
    }
    core::expect_contains(error_of([&] { space.features(at::zeros({1, 2, 8, 8})); }),
                          "1 or 3 channels");
    EXPECT_EQ(frechet_name(space.kind()), "clip_distance");
    core::expect_contains(space.resizing(), "to 32 pixels");
}

TEST_F(ClipGolden, mismatched_weights_are_rejected_by_name) {
    change_config("vision_config", "num_hidden_layers", 3);
    core::expect_contains(error_of([&] { Clip clip(folder_.path()); }),
                          "\"vision_model.encoder.layers.2.");
    change_config("vision_config", "patch_size", 16);
    core::expect_contains(error_of([&] { Clip clip(folder_.path()); }), "patch_embedding.weight");
    change_config("vision_config", "patch_size", 64);
    core::expect_contains(error_of([&] { Clip clip(folder_.path()); }), "patch_size");
    change_config("", "model_type", "siglip");
    core::expect_contains(error_of([&] { Clip clip(folder_.path()); }), "model_type");
    fs::remove(folder_ / "config.json");
    core::expect_contains(error_of([&] { Clip clip(folder_.path()); }), "config.json");
}

}  // namespace
}  // namespace atelier::metrics
