#include "atelier/serving/served_student.h"

#include "atelier/core/error.h"

namespace atelier::serving {

namespace {

/// Throws core::Error if the conditioning is missing or was made by another generator.
const inference::Conditioning& encoded_prompt(const server::Draw& draw) {
    const auto* condition = dynamic_cast<const EncodedCondition*>(draw.conditioning.get());
    if (condition == nullptr) core::fail("a draw has no conditioning of this model's prompts");
    return condition->encoded;
}

}  // namespace

ServedStudent::ServedStudent(std::unique_ptr<const inference::Sampler> sampler,
                             std::shared_ptr<inference::Decoder> decoder, ImageOrigin origin,
                             std::vector<std::int64_t> sample_shape, inference::Conditioning any,
                             std::size_t max_batch)
    : sampler_(std::move(sampler)),
      decoder_(std::move(decoder)),
      origin_(std::move(origin)),
      sample_shape_(std::move(sample_shape)),
      any_(std::move(any)),
      max_batch_(max_batch) {}

std::vector<server::GeneratedImage> ServedStudent::generate(std::span<const server::Draw> draws,
                                                            server::Clock::time_point) {
    std::vector<inference::SampleRequest> requests;
    std::vector<inference::Conditioning> each;
    for (const server::Draw& draw : draws) {
        requests.push_back({draw.seed, draw.number, {}});
        if (origin_.reads_prompts) {
            requests.back().condition = draw.prompt;
            each.push_back(encoded_prompt(draw));
            each.back().embeddings = Tensor();  // routers read them
        } else {
            requests.back().condition = inference::ClassId{draw.class_id};
            each.push_back({.classes = {draw.class_id}});
        }
    }
    const auto conditioning = inference::Conditioning::joined(each);
    const std::lock_guard alone(busy_);
    const Tensor user = decoder_->decode(sampler_->draw(requests, conditioning));
    std::vector<server::GeneratedImage> images;
    for (std::size_t i = 0; i < requests.size(); ++i) {
        origin_.request = requests[i];
        images.push_back(
            {data::image_of(user[static_cast<std::int64_t>(i)]), image_metadata(origin_)});
    }
    return images;
}

void ServedStudent::prepare() {
    for (std::size_t batch = 4; batch <= max_batch_; batch *= 4) warm_up(batch);
}

void ServedStudent::warm_up(std::size_t count) {
    const auto n = static_cast<std::int64_t>(count);
    const std::vector<std::int64_t> same(count, 0);
    const std::lock_guard alone(busy_);
    const Tensor samples =
        sampler_->evaluate(diffusion::image_noise(0, 0, n, sample_shape_), any_.select(same));
    decoder_->decode(samples.narrow(0, 0, 1));
}

}  // namespace atelier::serving
