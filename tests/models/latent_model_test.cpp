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

TEST_P(LatentModel, its_denoiser_predicts_like_diffusers) {
    const Model model = read_model(written());
    const backends::Parameters answers = model_.answers();
    const std::int64_t both[]{0, 2};
    const Tensor x = answers.at("x").narrow(3, 0, 8), t = answers.at("t"),
                 hidden = answers.at("hidden").index_select(
                     0, at::tensor(at::ArrayRef<std::int64_t>(both), at::kLong));
    const Tensor alphas_cumprod =
                     at::tensor(model.parametrisation.schedule->alphas_cumprod, at::kDouble)
                         .index_select(0, t.to(at::kLong)),
                 sigma = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().to(at::kFloat);
    // A denoiser's input is x_t over alpha_t; the network's prediction follows from its estimate of
    // the clean sample.
    const Tensor x_t = x / diffusion::expand_like(alphas_cumprod.sqrt(), x).to(at::kFloat);
    const auto with = diffusion::precondition(sigma, model.parametrisation);
    const Tensor predicted = (model.denoiser().denoise(x_t, sigma, {hidden}) -
                              diffusion::expand_like(with.c_skip, x) * x_t) /
                             diffusion::expand_like(with.c_out, x);
    const auto unet = networks::SdUnet::of(core::JsonObject(model.config.at("unet"), "unet"));
    const std::vector<Tensor> inputs{x, t, hidden};
    graph::GraphCache graphs;
    const Tensor direct =
        backends::TorchOps(model.parameters)
            .run(
                graphs,
                [&](graph::Builder& ops, std::span<const graph::Value> in) {
                    return std::vector{unet.forward(ops, in[0], in[1], in[2]).predicted};
                },
                inputs)[0];
    EXPECT_LT(backends::relative_distance(predicted, direct), 1e-4);
    EXPECT_EQ(networks::bottleneck_shape(model.network).size(), 4U);
}

TEST_P(LatentModel, converted_back_to_diffusers_it_has_the_same_tensors) {
    write_as_diffusers(written(), folder_ / "back");
    const DiffusersDirectory back(folder_ / "back"), before(model_.path());
    EXPECT_EQ(backends::hash_of(back.unet_weights().read()),
              backends::hash_of(before.unet_weights().read()));
    EXPECT_EQ(backends::hash_of(back.vae_weights().read()),
              backends::hash_of(before.vae_weights().read()));
    EXPECT_EQ(backends::hash_of(back.text_weights().read()),
              backends::hash_of(before.text_weights().read()));
    EXPECT_EQ(back.scheduler_config(), before.scheduler_config());
    EXPECT_FALSE(backends::error_of([&] {
                     write_as_diffusers(folder_ / "model", folder_ / "back");
                 }).empty())
        << "is there already";
}

TEST_P(LatentModel, without_its_parts_it_cannot_be_converted_to_diffusers) {
    const auto model = written();
    std::filesystem::create_directories(folder_ / "alone");
    for (const char* file : {"config.json", "model.safetensors"})
        std::filesystem::copy(model / file, folder_ / "alone" / file);
    EXPECT_NE(backends::error_of([&] {
                  write_as_diffusers(folder_ / "alone", folder_ / "back");
              }).find("no autoencoder"),
              std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "back"));
}

INSTANTIATE_TEST_SUITE_P(Forms, LatentModel, testing::Values(1, 2));

}  // namespace atelier::models
