#include "atelier/inference/decoder.h"

#include <mutex>

#include "atelier/inference/autoencoder.h"

namespace atelier::inference {

namespace {

class PlainDecoder final : public Decoder {
public:
    explicit PlainDecoder(const data::SampleSpec& spec) : spec_(spec) {}

    Tensor decode(const Tensor& samples) override {
        return data::to_user_space(spec_, samples).contiguous();
    }
    const data::SampleSpec& spec() const override { return spec_; }

private:
    data::SampleSpec spec_;
};

/// int8 is for the networks that draw; an autoencoder has no quantised layers.
Engine without_int8(Engine engine) {
    if (engine.precision == Engine::Precision::int8) engine.precision = Engine::Precision::fp32;
    return engine;
}

class LatentDecoder final : public Decoder {
public:
    LatentDecoder(const std::filesystem::path& folder,
                  const std::vector<std::int64_t>& latent_shape, const Engine& engine)
        : autoencoder_(folder, without_int8(engine)) {
        spec_.shape = autoencoder_.network().image_shape(latent_shape);
    }

    Tensor decode(const Tensor& samples) override {
        const std::lock_guard alone(busy_);
        return autoencoder_.decode_to_pixels(samples);
    }
    const data::SampleSpec& spec() const override { return spec_; }

private:
    std::mutex busy_;
    Autoencoder autoencoder_;
    data::SampleSpec spec_;
};

}  // namespace

std::shared_ptr<Decoder> plain_decoder(const data::SampleSpec& spec) {
    return std::make_shared<PlainDecoder>(spec);
}

std::shared_ptr<Decoder> latent_decoder(const std::filesystem::path& folder,
                                        const std::vector<std::int64_t>& latent_shape,
                                        const Engine& engine) {
    return std::make_shared<LatentDecoder>(folder, latent_shape, engine);
}

}  // namespace atelier::inference
