#include "atelier/inference/autoencoder.h"

#include <algorithm>

#include "atelier/inference/computed_network.h"
#include "atelier/inference/images_together.h"

namespace atelier::inference {

Tensor pixels_of(const Tensor& images) {
    return ((images / 2 + 0.5).clamp(0, 1) * 255)
        .round()
        .to(at::kByte)
        .permute({0, 2, 3, 1})
        .contiguous();
}

Autoencoder::Autoencoder(const std::filesystem::path& folder, const Engine& engine)
    : folder_(folder), engine_(engine), network_(models::read_vae_config(folder)) {}

Autoencoder::~Autoencoder() = default;

Autoencoder::Moments Autoencoder::encode(const Tensor& images) {
    check_sizes(images, "image", {network_.image_channels, -1, -1});
    check_multiple(images, "image", network_.factor());
    if (!encoder_) {
        encoder_ =
            std::make_unique<ComputedNetwork>(models::vae_weights_in(folder_, network_),
                                              network_.functions().at("encode").record, engine_);
    }
    const auto halves = encoder_->run({images.to(at::kCPU, at::kFloat).contiguous()});
    return {halves[0], halves[1].clamp(-30, 20)};
}

Tensor Autoencoder::decode(const Tensor& latents) {
    check_sizes(latents, "x", {network_.latent_channels, -1, -1});
    if (!decoder_) {
        decoder_ =
            std::make_unique<ComputedNetwork>(models::vae_weights_in(folder_, network_),
                                              network_.functions().at("decode").record, engine_);
    }
    return decoder_->run({latents.to(at::kCPU, at::kFloat).contiguous()})[0];
}

Tensor Autoencoder::decode_to_pixels(const Tensor& latents) {
    const std::vector<std::int64_t> image = network_.image_shape(latents.sizes().slice(1).vec());
    const std::int64_t together = images_together(engine_.device, image[1], image[2]);
    std::vector<Tensor> images;
    for (std::int64_t i = 0; i < latents.size(0); i += together) {
        const Tensor some = latents.narrow(0, i, std::min(together, latents.size(0) - i));
        images.push_back(pixels_of(decode(some / network_.scaling + network_.shift)));
    }
    return at::cat(images);
}

}  // namespace atelier::inference
