#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "atelier/inference/pipeline.h"
#include "atelier/server/generator.h"
#include "atelier/serving/image_metadata.h"

namespace atelier::serving {

/// An encoded condition, of one sample.
struct EncodedCondition final : server::Conditioning {
    explicit EncodedCondition(inference::Conditioning of_one) : encoded(std::move(of_one)) {}
    inference::Conditioning encoded;
};

/// A student in memory, which runs one batch at a time.
class ServedStudent final : public server::Student {
public:
    /// `origin`: metadata without the request. `any`: a condition that the student owns, for
    /// warming up.
    ServedStudent(std::unique_ptr<const inference::Sampler> sampler,
                  std::shared_ptr<inference::Decoder> decoder, ImageOrigin origin,
                  std::vector<std::int64_t> sample_shape, inference::Conditioning any,
                  std::size_t max_batch);

    std::vector<server::GeneratedImage> generate(std::span<const server::Draw> draws,
                                                 server::Clock::time_point) override;

    /// OpenVINO compiles for batches of 1, 4, 16, ... images when they are first drawn; this
    /// evaluates one batch of each size up to the largest.
    void prepare() override;
    /// Evaluates the network for `count` samples and decodes them.
    void warm_up(std::size_t count);

private:
    std::unique_ptr<const inference::Sampler> sampler_;
    std::shared_ptr<inference::Decoder> decoder_;
    ImageOrigin origin_;
    std::vector<std::int64_t> sample_shape_;
    inference::Conditioning any_;
    std::size_t max_batch_;
    std::mutex busy_;  // held by generate and prepare
};

}  // namespace atelier::serving
