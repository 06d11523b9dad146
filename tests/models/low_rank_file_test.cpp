#include "atelier/models/low_rank_file.h"

#include "models/diffusers_fixtures.h"

namespace atelier::models {

namespace {

using backends::error_of;
using backends::expect_contains;

class LowRankFiles : public testing::Test {
protected:
    std::string write(std::map<std::string, Tensor> tensors,
                      const std::map<std::string, std::string>& metadata = {}) const {
        backends::write_parameters(folder_ / "lora.safetensors",
                                   backends::Parameters(std::move(tensors)), metadata);
        return (folder_ / "lora.safetensors").string();
    }
    PartDeltas read(const std::string& file) const {
        const std::vector<LowRankFile> files{LowRankFile::of(file)};
        return read_low_rank(files, DiffusersDirectory(model_.path()));
    }
    std::string error_of_reading(std::map<std::string, Tensor> tensors) const {
        const std::string file = write(std::move(tensors));
        return error_of([&] { read(file); });
    }
    /// The change of a layer's weight.
    static Tensor change(const backends::Parameters& deltas, const std::string& layer) {
        return at::matmul(deltas.at(layer + ".lora_up.weight").flatten(1),
                          deltas.at(layer + ".lora_down.weight").flatten(1));
    }
    Tensor down_ = backends::normal({2, 16}, "down"), up_ = backends::normal({16, 2}, "up");

    core::TestFolder folder_;
    SmallDiffusers model_{"sdxl"};
};

const std::string query = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";

}  // namespace

TEST_F(LowRankFiles, attention_processors_and_text_encoders_are_found_by_every_name) {
    const std::string block = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.",
                      text = "text_model.encoder.layers.1.self_attn.";
    for (const auto& [key, part, layer] :
         std::vector<std::tuple<std::string, std::string, std::string>>{
             {"unet." + block + "processor.to_q_lora.", "unet", block + "to_q"},
             {"unet." + block + "processor.to_out_lora.", "unet", block + "to_out.0"},
             {block + "processor.to_v_lora.", "unet", block + "to_v"},
             {"text_encoder." + text + "q_proj.lora_linear_layer.", "text_encoder",
              text + "q_proj"},
             {"text_encoder." + text + "to_out_lora.", "text_encoder", text + "out_proj"},
             {"text_encoder.encoder.layers.1.self_attn.k_proj.lora.", "text_encoder",
              text + "k_proj"}}) {
        const PartDeltas deltas =
            read(write({{key + "down.weight", down_}, {key + "up.weight", up_}}));
        ASSERT_TRUE(deltas.contains(part) && deltas.size() == 1) << key;
        EXPECT_LT(
            backends::relative_distance(change(deltas.at(part), layer), at::matmul(up_, down_)),
            1e-6)
            << key;
    }
    const std::string kohya = "lora_te2_text_model_encoder_layers_0_mlp_fc1";
    const PartDeltas second =
        read(write({{kohya + ".lora_down.weight", backends::normal({2, 24}, "down")},
                    {kohya + ".lora_up.weight", backends::normal({40, 2}, "up")},
                    {kohya + ".alpha", at::scalar_tensor(1.0).to(at::kHalf)}}));
    EXPECT_TRUE(
        second.at("text_encoder_2").contains("text_model.encoder.layers.0.mlp.fc1.lora_up.weight"));
}

TEST_F(LowRankFiles, names_of_the_first_code_are_those_of_the_same_layers) {
    // As sgm numbers the blocks of three levels of two layers each.
    for (const auto& [theirs, ours, shape] :
         std::vector<std::tuple<std::string, std::string, graph::Shape>>{
             {"input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1", {8, 8, 3, 3}},
             {"input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv", {8, 8, 3, 3}},
             {"input_blocks_4_0_emb_layers_1", "down_blocks.1.resnets.0.time_emb_proj", {16, 32}},
             {"input_blocks_7_1_proj_in", "down_blocks.2.attentions.0.proj_in", {16, 16}},
             {"middle_block_1_transformer_blocks_0_attn1_to_q",
              "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
              {16, 16}},
             {"output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv", {16, 16, 3, 3}},
             {"output_blocks_4_1_transformer_blocks_1_attn2_to_v",
              "up_blocks.1.attentions.1.transformer_blocks.1.attn2.to_v",
              {16, 40}},
             {"output_blocks_6_0_skip_connection",
              "up_blocks.2.resnets.0.conv_shortcut",
              {8, 24, 1, 1}}}) {
        graph::Shape down = shape, up(shape.size(), 1);
        down[0] = 1, up[0] = shape[0];
        const PartDeltas deltas =
            read(write({{"lora_unet_" + theirs + ".lora_down.weight", at::ones(down)},
                        {"lora_unet_" + theirs + ".lora_up.weight", at::ones(up)}}));
        EXPECT_TRUE(deltas.at("unet").contains(ours + ".lora_down.weight")) << theirs;
    }
}

TEST_F(LowRankFiles, alpha_comes_from_the_file_or_from_pefts_settings) {
    const std::string key = "unet." + query;
    const std::map<std::string, Tensor> peft{{key + ".lora_A.weight", down_},
                                             {key + ".lora_B.weight", up_}};
    const auto factor = [&](const PartDeltas& deltas) {
        return (change(deltas.at("unet"), query) / at::matmul(up_, down_)).mean().item<double>();
    };
    EXPECT_NEAR(factor(read(write(peft))), 1, 1e-5);
    const auto with = [&](const nlohmann::json& settings) {
        return factor(read(write(peft, {{"lora_adapter_metadata", settings.dump()}})));
    };
    EXPECT_NEAR(with({{"unet.r", 2}, {"unet.lora_alpha", 8}}), 4, 1e-5);
    EXPECT_NEAR(with({{"unet.lora_alpha", 8}, {"unet.use_rslora", true}}), 8 / std::sqrt(2), 1e-5);
    EXPECT_NEAR(with({{"unet.lora_alpha", 8}, {"unet.alpha_pattern", {{"to_q", 3}}}}), 1.5, 1e-5);
    auto kohya = peft;
    kohya[key + ".alpha"] = at::scalar_tensor(6.0);
    EXPECT_NEAR(factor(read(write(kohya))), 3, 1e-5);
    EXPECT_NEAR(factor(read(write(kohya) + ":-0.5")), -1.5, 1e-5);
    const std::string dora = write(peft, {{"lora_adapter_metadata", R"({"unet.use_dora": true})"}});
    expect_contains(error_of([&] { read(dora); }), "DoRA");
    const std::string broken = write(peft, {{"lora_adapter_metadata", "{"}});
    expect_contains(error_of([&] { read(broken); }), "lora.safetensors");
}

TEST_F(LowRankFiles, what_fits_no_layer_is_named_and_counted) {
    const std::string key = "unet." + query;
    const std::map<std::string, Tensor> fine{{key + ".lora_A.weight", down_},
                                             {key + ".lora_B.weight", up_}};
    const auto with = [&](const std::string& name, const Tensor& tensor) {
        auto tensors = fine;
        tensors[name] = tensor;
        return error_of_reading(tensors);
    };
    expect_contains(with("unet.no.such.layer.lora_A.weight", down_),
                    "1 of its 3 keys are of no layer of this model");
    expect_contains(with(key + ".dora_scale", up_), ".dora_scale");
    expect_contains(with("lora_unet_x.hada_w1_a", up_), "hada_w1_a");
    expect_contains(with("lora_te3_x.lora_down.weight", up_), "lora_te3_x");
    expect_contains(with(key + ".lora_down.weight", down_), "there twice");
    expect_contains(with(key + ".lora_A.weight", down_.to(at::kInt)), "is of type I32");
    expect_contains(with(key + ".lora_A.weight", down_.narrow(1, 0, 15)), "the down of layer");
    expect_contains(with(key + ".lora_B.weight", up_.narrow(0, 0, 15)), "the up of layer");
    expect_contains(with(key + ".lora_A.weight", down_[0]), "the down of layer");
    expect_contains(with(key + ".lora_A.weight", at::full({2, 16}, NAN)), "not finite");
    expect_contains(with(key + ".alpha", at::ones({2})), "the alpha of layer");
    expect_contains(error_of_reading({{key + ".lora_A.weight", down_}}), "has no counterpart");
    expect_contains(error_of_reading({{"unet.conv_in.lora_A.weight", at::ones({1, 4, 1, 1})},
                                      {"unet.conv_in.lora_B.weight", at::ones({8, 1, 1, 1})}}),
                    "the down of layer");
    expect_contains(error_of([&] { LowRankFile::of("nothing:0.5"); }), "there is no file nothing");
    expect_contains(error_of([&] { LowRankFile::of(write(fine) + ":half"); }), "is no number");
}

TEST_F(LowRankFiles, are_merged_into_a_written_directory_which_keeps_its_types) {
    SmallStableDiffusion::change(model_.path() / "unet/diffusion_pytorch_model.safetensors",
                                 [](auto& tensors) {
                                     for (auto& [name, tensor] : tensors)
                                         tensor = tensor.to(at::kHalf);
                                 });
    const std::string key = "unet." + query;
    const DiffusersDirectory from(model_.path());
    write_diffusers_directory(
        from, folder_ / "merged",
        read(write({{key + ".lora_A.weight", down_}, {key + ".lora_B.weight", up_}})));
    const DiffusersWeights before = from.denoiser_weights(),
                           after = DiffusersDirectory(folder_ / "merged").denoiser_weights();
    EXPECT_EQ(after.types(), "F16");
    const auto then = before.map(), now = after.map();
    for (const auto& [name, tensor] : now.tensors()) {
        EXPECT_EQ(tensor.equal(then.at(name)), name != query + ".weight") << name;
    }
    const Tensor changed =
        now.at(query + ".weight").to(at::kFloat) - then.at(query + ".weight").to(at::kFloat);
    EXPECT_LT(backends::relative_distance(changed, at::matmul(up_, down_)), 1e-2);
}

}  // namespace atelier::models
