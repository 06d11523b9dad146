#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "atelier/inference/autoencoder.h"
#include "atelier/inference/prompted_model.h"
#include "atelier/server/generator.h"
#include "atelier/serving/image_metadata.h"

namespace atelier::serving {

/// A student in memory, which runs one batch at a time.
class ServedStudent : public server::Student {
public:
    std::vector<server::GeneratedImage> generate(std::span<const server::Draw> draws,
                                                 server::Clock::time_point) final;

    /// OpenVINO compiles for batches of 1, 4, 16, ... images when they are first drawn; this draws
    /// one batch of each size up to the largest.
    void prepare() final;
    /// Draws `count` images and discards them.
    void warm_up(std::size_t count);

protected:
    ServedStudent(ImageOrigin origin, std::size_t max_batch)
        : origin_(std::move(origin)), max_batch_(max_batch) {}

    /// Pixels [N,H,W,C].
    virtual Tensor pixels(std::span<const inference::Draw> draws,
                          std::span<const server::Draw> requested) = 0;
    /// A valid draw of this student, for warming up.
    virtual server::Draw any_draw() const = 0;

private:
    ImageOrigin origin_;
    std::size_t max_batch_;
    std::mutex busy_;  // held by generate and prepare
};

/// A student that owns classes. `origin`: metadata without the draw.
std::unique_ptr<ServedStudent> class_student(models::Model model, const ImageOrigin& origin,
                                             const std::vector<std::int64_t>& classes,
                                             std::size_t max_batch);

/// Shared by the students of a model that takes prompts.
struct PromptTools {
    inference::PromptReader reader;
    double guidance = 1;
    std::optional<inference::Autoencoder> autoencoder;  // of latents
    std::mutex busy;                                    // guards `autoencoder`
};

/// The conditioning of one prompt, a tensor [1,...], for students from `prompt_student`.
std::shared_ptr<const server::Conditioning> conditioning_of(const Tensor& row);

/// A student that owns prompts.
std::unique_ptr<ServedStudent> prompt_student(models::Model model, const ImageOrigin& origin,
                                              std::shared_ptr<PromptTools> tools,
                                              std::size_t max_batch);

}  // namespace atelier::serving
