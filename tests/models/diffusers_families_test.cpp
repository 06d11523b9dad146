#include "models/diffusers_fixtures.h"

#include <cmath>

#include "atelier/graph/sinusoid.h"
#include "atelier/models/identify_path.h"

/// SDXL, Stable Diffusion 3, DiT and networks alone: what their files may say.
namespace atelier::models {

namespace {

namespace fs = std::filesystem;
using backends::error_of;
using backends::expect_contains;
using nlohmann::json;

/// The error for a model in which a JSON file was changed.
std::string error_after(const char* name, const std::string& file,
                        const std::function<void(json&)>& change) {
    const SmallDiffusers model(name);
    json config = core::read_json(model.path() / file);
    change(config);
    core::write_json(model.path() / file, config);
    return error_of([&] {
        if (is_diffusers_directory(model.path())) DiffusersDirectory(model.path()).about();
        else DiffusersPart(model.path()).about();
    });
}

void expect_refused(const char* name, const std::string& file, const std::string& key,
                    const json& value, const std::string& what) {
    const std::string message = error_after(name, file, [&](json& config) { config[key] = value; });
    expect_contains(message, file);
    expect_contains(message, what);
    EXPECT_EQ(message.find('\n'), message.npos);
}

}  // namespace

TEST(DiffusersFamilies, options_that_would_change_the_result_are_refused_by_name) {
    const std::string unet = "unet/config.json", transformer = "transformer/config.json",
                      scheduler = "scheduler/scheduler_config.json";
    expect_refused("sdxl", unet, "addition_embed_type", "image", "addition_embed_type");
    expect_refused("sdxl", unet, "projection_class_embeddings_input_dim", 36, "refiner");
    expect_refused("sdxl", unet, "addition_time_embed_dim", 5, "even");
    expect_refused("sdxl", unet, "transformer_layers_per_block", {1, 2}, "2 entries for 3 blocks");
    expect_refused("sdxl", unet, "cross_attention_dim", 41, "reads text states of width 41");
    expect_refused("sdxl", scheduler, "use_karras_sigmas", true, "use_karras_sigmas");
    expect_refused("sdxl", scheduler, "interpolation_type", "log_linear", "interpolation_type");
    expect_refused("sd3", transformer, "qk_norm", "layer_norm", "qk_norm");
    expect_refused("sd3", transformer, "caption_projection_dim", 25, "caption_projection_dim");
    expect_refused("sd3", transformer, "dual_attention_layers", {3}, "dual_attention_layers");
    expect_refused("sd3", transformer, "num_layers", 1'000'000, "num_layers");
    expect_refused("sd3", transformer, "pos_embed_max_size", 1'000'000, "pos_embed_max_size");
    expect_refused("sd3", transformer, "_class_name", "DiTTransformer2DModel", "only SD3");
    expect_refused("sd3", scheduler, "use_dynamic_shifting", true, "use_dynamic_shifting");
    expect_refused("sd3", scheduler, "shift", -1, "shift");
    expect_refused("dit", transformer, "norm_type", "ada_norm", "norm_type");
    expect_refused("dit", transformer, "activation_fn", "swiglu", "activation_fn");
    expect_refused("dit", transformer, "out_channels", 5, "out_channels");
    expect_refused("dit", transformer, "patch_size", 3, "patch_size");
    expect_refused("taesd", "config.json", "upsampling_scaling_factor", 4, "upsampling");
    expect_refused("taesd", "config.json", "act_fn", "mish", "act_fn");
    expect_refused("taesd", "config.json", "decoder_block_out_channels", {16, 8}, "equal");
    expect_refused("taesd", "config.json", "num_decoder_blocks", {2}, "one entry per block");
    expect_refused("taesd", "config.json", "_class_name", "AutoencoderTinny",
                   "did you mean \"AutoencoderTiny\"");
}

TEST(DiffusersFamilies, files_of_another_size_than_the_config_are_refused) {
    const auto message = [](const char* name, const std::string& file, const std::string& key,
                            const json& value) {
        return error_after(name, file, [&](json& config) { config[key] = value; });
    };
    expect_contains(message("sd3", "transformer/config.json", "pos_embed_max_size", 8),
                    "\"pos_embed.pos_embed\" is [1,81,24], config.json implies [1,64,24]");
    expect_contains(message("dit", "transformer/config.json", "num_embeds_ada_norm", 6),
                    "embedding_table.weight");
    expect_contains(message("taesd", "config.json", "latent_channels", 4), "config.json implies");
}

TEST(DiffusersFamilies, rounded_tables_of_positions_are_computed_again_and_others_kept) {
    const SmallDiffusers model("sd3_plain");
    const fs::path file = model.path() / "diffusion_pytorch_model.safetensors";
    const DiffusersPart part(model.path());
    const auto unrounded = [&] { return unrounded_tables(part.functions(), part.weights()); };
    EXPECT_TRUE(unrounded().empty()) << "float32 is as it is";
    const auto store = [&](const Tensor& table) {
        SmallStableDiffusion::change(
            file, [&](auto& tensors) { tensors["pos_embed.pos_embed"] = table; });
    };
    store(backends::normal({1, 25, 24}, "a table of its own").to(at::kHalf));
    EXPECT_TRUE(unrounded().empty()) << "it is no table of sinusoids";
    const Tensor exact =
        at::tensor(graph::grid_table({.height = 5, .width = 5, .base = 4}, 24)).view({1, 25, 24});
    EXPECT_NEAR(exact[0][7][0].item<double>(), std::sin(2.0 / (5.0 / 4.0)), 1e-6) << "x of row 1";
    EXPECT_NEAR(exact[0][7][18].item<double>(), std::cos(1.0 / (5.0 / 4.0)), 1e-6) << "y of row 1";
    for (const auto type : {at::kHalf, at::kBFloat16}) {
        store(exact.to(type));
        EXPECT_TRUE(unrounded().at("pos_embed.pos_embed").equal(exact));
    }
}

TEST(DiffusersFamilies, t5_is_named_where_prompts_are_read) {
    const SmallDiffusers model("sd3");
    const fs::path file = model.path() / "model_index.json";
    DiffusersDirectory(model.path()).require_readable_text();
    json index = core::read_json(file);
    index["text_encoder_3"] = {"transformers", "T5EncoderModel"};
    core::write_json(file, index);
    const DiffusersDirectory directory(model.path());
    directory.about();
    expect_contains(error_of([&] { directory.require_readable_text(); }), "T5EncoderModel");
}

TEST(DiffusersFamilies, are_described_and_written_bit_for_bit) {
    for (const char* name : {"sdxl", "sd3", "dit"}) {
        const SmallDiffusers model(name);
        const DiffusersDirectory from(model.path());
        const json about = from.about();
        EXPECT_EQ(about.at("image_size"), 16) << name;
        EXPECT_EQ(about.contains("class_names"), std::string(name) == "dit");
        const core::TestFolder folder;
        write_diffusers_directory(from, folder / "copy");
        const DiffusersDirectory copy(folder / "copy");
        EXPECT_EQ(copy.about(), about);
        const auto before = from.all_weights(), after = copy.all_weights();
        EXPECT_EQ(before.size(), from.text_parts().size() + 2);
        for (const auto& [part, weights] : before)
            EXPECT_EQ(backends::hash_of(after.at(part).read()), backends::hash_of(weights.read()));
        for (const fs::path& tokenizer : copy.tokenizers())
            EXPECT_TRUE(fs::exists(tokenizer / "merges.txt")) << tokenizer;
    }
    EXPECT_EQ(DiffusersDirectory(SmallDiffusers("dit").path()).class_names().back(), "class 4");
}

TEST(DiffusersFamilies, a_network_alone_is_a_kind_of_its_own) {
    const SmallDiffusers tiny("taesd"), plain("sd3_plain"), whole("sdxl");
    EXPECT_EQ(identify_path(tiny.path()).kind, PathInfo::Kind::diffusers_network);
    expect_contains(identify_path(tiny.path()).suggestion, "--part vae");
    EXPECT_EQ(DiffusersPart(tiny.path()).about().at("kind"), "autoencoder");
    EXPECT_EQ(identify_path(plain.path()).kind, PathInfo::Kind::diffusers_network);
    EXPECT_EQ(identify_path(whole.path() / "vae").kind, PathInfo::Kind::diffusers_part);
    EXPECT_EQ(identify_path(whole.path()).kind, PathInfo::Kind::diffusers);
}

TEST(DiffusersFamilies, published_sizes_have_as_many_parameters_as_published) {
    const auto count = [](const json& config) {
        std::int64_t total = 0;
        for (const auto& spec : networks::parameters_of(
                 networks::read_diffusers_network(core::JsonObject(config, "config.json"))))
            total += graph::elements(spec.shape);
        return total;
    };
    EXPECT_EQ(
        count(
            {{"_class_name", "UNet2DConditionModel"},
             {"block_out_channels", {320, 640, 1280}},
             {"layers_per_block", 2},
             {"attention_head_dim", {5, 10, 20}},
             {"transformer_layers_per_block", {1, 2, 10}},
             {"cross_attention_dim", 2048},
             {"use_linear_projection", true},
             {"addition_embed_type", "text_time"},
             {"addition_time_embed_dim", 256},
             {"projection_class_embeddings_input_dim", 2816},
             {"down_block_types", {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}},
             {"up_block_types", {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}}}),
        2'567'463'684);
}

}  // namespace atelier::models
