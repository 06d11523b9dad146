#include "atelier/models/diffusers_directory.h"

#include "models/diffusers_fixtures.h"

namespace atelier::models {

namespace {

namespace fs = std::filesystem;
using backends::error_of;
using backends::expect_contains;
using nlohmann::json;

/// The error for a directory in which a JSON file was changed.
std::string error_after(const std::string& file, const std::function<void(json&)>& change) {
    const SmallStableDiffusion model(1);
    json config = core::read_json(model.path() / file);
    change(config);
    core::write_json(model.path() / file, config);
    return error_of([&] { DiffusersDirectory(model.path()).about(); });
}

std::string error_of_weights(const SmallStableDiffusion& model) {
    return error_of([&] { DiffusersDirectory(model.path()).about(); });
}

/// Splits a file into two that an index names.
void shard(const fs::path& file) {
    const auto tensors = backends::read_parameters(file).tensors();
    backends::Parameters halves[2];
    json map;
    std::size_t i = 0;
    for (const auto& [name, tensor] : tensors) {
        const std::size_t half = i++ % 2;
        halves[half].set(name, tensor);
        map[name] = fmt::format("part-{}.safetensors", half);
    }
    for (const int half : {0, 1})
        backends::write_parameters(file.parent_path() / fmt::format("part-{}.safetensors", half),
                                   halves[half]);
    core::write_json(fs::path(file.string() + ".index.json"),
                     {{"metadata", {{"total_size", 1}}}, {"weight_map", map}});
    fs::remove(file);
}

json stable_diffusion_1_5() {
    return {
        {"_class_name", "UNet2DConditionModel"},
        {"block_out_channels", {320, 640, 1280, 1280}},
        {"layers_per_block", 2},
        {"attention_head_dim", 8},
        {"cross_attention_dim", 768},
        {"in_channels", 4},
        {"out_channels", 4},
        {"down_block_types",
         {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"}},
        {"up_block_types",
         {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"}}};
}

template <class Specs>
std::int64_t count_of(const Specs& specs) {
    std::int64_t total = 0;
    for (const auto& spec : specs) total += graph::elements(spec.shape);
    return total;
}

}  // namespace

TEST(DiffusersDirectory, stable_diffusion_1_5_has_as_many_parameters_as_published) {
    const json unet = stable_diffusion_1_5();
    EXPECT_EQ(count_of(parameters_of(networks::SdUnet::of(core::JsonObject(unet, "config.json")))),
              859'520'964);
    const json vae{{"block_out_channels", {128, 256, 512, 512}},
                   {"layers_per_block", 2},
                   {"down_block_types", json(4, "DownEncoderBlock2D")},
                   {"up_block_types", json(4, "UpDecoderBlock2D")}};
    EXPECT_EQ(count_of(parameters_of(networks::SdVae::of(core::JsonObject(vae, "config.json")))),
              83'653'863);
    const json text{{"hidden_size", 768},
                    {"intermediate_size", 3072},
                    {"num_hidden_layers", 12},
                    {"num_attention_heads", 12},
                    {"vocab_size", 49408}};
    EXPECT_EQ(
        count_of(parameters_of(networks::ClipText::of(core::JsonObject(text, "config.json")))),
        123'060'480);
}

TEST(DiffusersDirectory, half_precision_and_shards_are_read_like_one_file) {
    const SmallStableDiffusion model(2);
    const backends::Parameters whole = DiffusersDirectory(model.path()).unet_weights().read();
    SmallStableDiffusion::change(model.unet_file(), [](auto& tensors) {
        for (auto& [name, tensor] : tensors)
            tensor = tensor.to(name.ends_with("bias") ? at::kBFloat16 : at::kHalf);
    });
    const DiffusersWeights half = DiffusersDirectory(model.path()).unet_weights();
    EXPECT_EQ(half.types(), "BF16, F16");
    const backends::Parameters read = half.read();
    for (const auto& [name, tensor] : read.tensors()) {
        EXPECT_EQ(tensor.scalar_type(), at::kFloat);
        EXPECT_LT(backends::relative_distance(tensor, whole.at(name)), 0.01) << name;
    }
    const SmallStableDiffusion sharded(2);
    shard(sharded.unet_file());
    const DiffusersWeights weights = DiffusersDirectory(sharded.path()).unet_weights();
    EXPECT_EQ(weights.files().size(), 2U);
    EXPECT_EQ(backends::hash_of(weights.read()), backends::hash_of(whole));
}

TEST(DiffusersDirectory, older_names_are_supported) {
    const SmallStableDiffusion model(1);
    const std::string before =
        backends::hash_of(DiffusersDirectory(model.path()).vae_weights().read());
    SmallStableDiffusion::change(model.vae_file(), [](auto& tensors) {
        std::map<std::string, Tensor> renamed;
        for (const auto& [name, tensor] : tensors) {
            std::string old = name;
            for (const auto& [now, then] : {std::pair{".to_q.", ".query."},
                                            {".to_k.", ".key."},
                                            {".to_v.", ".value."},
                                            {".to_out.0.", ".proj_attn."}}) {
                if (const auto place = old.find(now); place != old.npos)
                    old.replace(place, std::string(now).size(), then);
            }
            renamed[old] = tensor;
        }
        tensors = renamed;
    });
    SmallStableDiffusion::change(model.text_file(), [](auto& tensors) {
        tensors["text_model.embeddings.position_ids"] = at::arange(77).unsqueeze(0);
    });
    const DiffusersDirectory directory(model.path());
    EXPECT_EQ(backends::hash_of(directory.vae_weights().read()), before);
    directory.text_weights();
}

TEST(DiffusersDirectory, an_error_is_one_line_that_names_the_file) {
    const auto expect_said = [](const std::string& message, const std::string& file,
                                const std::string& what) {
        expect_contains(message, file);
        expect_contains(message, what);
        EXPECT_EQ(message.find('\n'), message.npos);
    };
    expect_said(
        error_after("model_index.json", [](json& c) { c["_class_name"] = "KandinskyPipeline"; }),
        "model_index.json", "KandinskyPipeline");
    expect_said(error_after("model_index.json",
                            [](json& c) { c["_class_name"] = "StableDiffusionXLPipeline"; }),
                "model_index.json", "names no \"text_encoder_2\"");
    expect_said(
        error_after("model_index.json", [](json& c) { c["unet"][1] = "Transformer2DModel"; }),
        "model_index.json", "Transformer2DModel");
    expect_said(error_after("model_index.json", [](json& c) { c.erase("vae"); }),
                "model_index.json", "vae");
    expect_said(error_after("unet/config.json",
                            [](json& c) { c["down_block_types"][0] = "AttnDownBlock2D"; }),
                "unet/config.json", "AttnDownBlock2D");
    expect_said(
        error_after("unet/config.json", [](json& c) { c["class_embed_type"] = "timestep"; }),
        "unet/config.json", "class_embed_type");
    expect_said(error_after("unet/config.json", [](json& c) { c["block_out_channels"] = {8, 32}; }),
                "unet/diffusion_pytorch_model.safetensors", "config.json implies");
    expect_said(error_after("unet/config.json", [](json& c) { c["layers_per_block"] = 2; }),
                "unet/diffusion_pytorch_model.safetensors", "is missing");
    expect_said(error_after("unet/config.json", [](json& c) { c["attention_head_dim"] = 3; }),
                "unet/config.json", "multiple");
    expect_said(
        error_after("vae/config.json", [](json& c) { c["up_block_types"][1] = "UpBlock2D"; }),
        "vae/config.json", "UpBlock2D");
    expect_said(error_after("text_encoder/config.json", [](json& c) { c["hidden_act"] = "relu"; }),
                "text_encoder/config.json", "relu");
    expect_said(
        error_after("text_encoder/config.json", [](json& c) { c["num_hidden_layers"] = 1; }),
        "text_encoder/model.safetensors", "belongs to no layer");
}

TEST(DiffusersDirectory, invalid_weights_are_one_line_that_names_the_file) {
    {
        const SmallStableDiffusion model(1);
        shard(model.unet_file());
        fs::remove(model.path() / "unet/part-1.safetensors");
        expect_contains(error_of_weights(model), "unet/part-1.safetensors: is missing");
        core::write_json(model.unet_file().string() + ".index.json",
                         {{"weight_map", {{"conv_in.bias", "../part-0.safetensors"}}}});
        expect_contains(error_of_weights(model), "shards lie beside the index");
        core::write_json(model.unet_file().string() + ".index.json",
                         {{"weight_map", {{"no such tensor", "part-0.safetensors"}}}});
        expect_contains(error_of_weights(model), "no such tensor");
    }
    const SmallStableDiffusion model(1);
    SmallStableDiffusion::change(model.unet_file(), [](auto& tensors) {
        tensors["conv_in.bias"] = tensors["conv_in.bias"].to(at::kInt);
    });
    expect_contains(error_of_weights(model), "is of type I32");
    fs::remove(model.unet_file());
    core::write_text(model.path() / "unet/diffusion_pytorch_model.bin", "x");
    expect_contains(error_of_weights(model), "holds no weights");
}

TEST(DiffusersDirectory, a_written_directory_holds_the_same_tensors) {
    const SmallStableDiffusion model(1);
    SmallStableDiffusion::change(model.unet_file(), [](auto& tensors) {
        for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kHalf);
    });
    shard(model.vae_file());
    const core::TestFolder folder;
    const DiffusersDirectory from(model.path());
    write_diffusers_directory(from, folder / "copy");
    const DiffusersDirectory copy(folder / "copy");
    EXPECT_EQ(copy.unet_weights().types(), "F16");
    EXPECT_EQ(copy.vae_weights().files().size(), 1U);
    const auto same = [](const DiffusersWeights& a, const DiffusersWeights& b) {
        return backends::hash_of(a.read()) == backends::hash_of(b.read());
    };
    EXPECT_TRUE(same(copy.unet_weights(), from.unet_weights()) &&
                same(copy.vae_weights(), from.vae_weights()) &&
                same(copy.text_weights(), from.text_weights()));
    EXPECT_TRUE(fs::exists(copy.tokenizer() / "merges.txt") && fs::exists(copy.scheduler_file()));
    expect_contains(error_of([&] { write_diffusers_directory(from, folder / "copy"); }), "exists");
}

}  // namespace atelier::models
