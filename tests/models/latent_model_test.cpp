#include "atelier/models/latent_model.h"

#include "models/diffusers_fixtures.h"

namespace atelier::models {

namespace {

class LatentModel : public testing::TestWithParam<int> {
protected:
    std::filesystem::path written() {
        write_latent_model(DiffusersDirectory(model_.path()), folder_ / "model");
        return folder_ / "model";
    }

    SmallStableDiffusion model_{GetParam()};
    core::TestFolder folder_;
};

}  // namespace

TEST_P(LatentModel, its_denoiser_predicts_what_diffusers_does) {
    const Model model = read_model(written());
    const ops::Parameters answers = model_.answers();
    const std::int64_t both[]{0, 2};
    const Tensor x = answers.at("x").narrow(3, 0, 8), t = answers.at("t"), hidden = answers.at("hidden").index_select(0, at::tensor(at::ArrayRef<std::int64_t>(both), at::kLong));
    const Tensor signal = at::tensor(model.scheme.schedule->signal, at::kDouble).index_select(0, t.to(at::kLong)), sigma = ((1 - signal) / signal).sqrt().to(at::kFloat);
    // What a denoiser is given is x_t over alpha_t; from its estimate of the clean sample follows what the network predicted.
    const Tensor x_t = x / diffusion::along(signal.sqrt(), x).to(at::kFloat);
    const auto with = diffusion::precondition(sigma, model.scheme);
    const Tensor predicted = (model.denoiser().denoise(x_t, sigma, {hidden}) - diffusion::along(with.c_skip, x) * x_t) / diffusion::along(with.c_out, x);
    ops::ShapeOps shapes;
    ops::TorchOps speaker(model.parameters);
    const Tensor direct = ops::tensor_of(networks::SdUnet::of(core::JsonObject(model.config.at("unet"), "unet")).forward(speaker, x, t, hidden).predicted);
    EXPECT_LT(ops::relative_distance(predicted, direct), 1e-4);
    EXPECT_EQ(networks::bottleneck_shape(model.network).size(), 4U);
}

TEST_P(LatentModel, as_a_diffusers_directory_again_it_has_the_same_tensors) {
    write_as_diffusers(written(), folder_ / "back");
    const DiffusersDirectory back(folder_ / "back"), before(model_.path());
    EXPECT_EQ(ops::hash_of(back.unet_weights().read()), ops::hash_of(before.unet_weights().read()));
    EXPECT_EQ(ops::hash_of(back.vae_weights().read()), ops::hash_of(before.vae_weights().read()));
    EXPECT_EQ(ops::hash_of(back.text_weights().read()), ops::hash_of(before.text_weights().read()));
    EXPECT_EQ(back.scheduler_config(), before.scheduler_config());
    EXPECT_FALSE(ops::error_of([&] { write_as_diffusers(folder_ / "model", folder_ / "back"); }).empty()) << "is there already";
}

TEST_P(LatentModel, without_its_parts_it_is_no_diffusers_directory) {
    const auto model = written();
    std::filesystem::create_directories(folder_ / "alone");
    for (const char* file : {"config.json", "model.safetensors"}) std::filesystem::copy(model / file, folder_ / "alone" / file);
    EXPECT_NE(ops::error_of([&] { write_as_diffusers(folder_ / "alone", folder_ / "back"); }).find("no autoencoder"), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "back"));
}

INSTANTIATE_TEST_SUITE_P(Forms, LatentModel, testing::Values(1, 2));

}  // namespace atelier::models
