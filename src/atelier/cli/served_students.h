#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "atelier/cli/picture_text.h"
#include "atelier/inference/autoencoder.h"
#include "atelier/inference/prompted_model.h"
#include "atelier/server/generator.h"

namespace atelier::cli {

/// A student in memory, as the server asks it: one batch at a time.
class ServedStudent : public server::Student {
public:
    std::vector<server::Picture> generate(std::span<const server::Draw> draws, server::Clock::time_point) final;

    /// OpenVINO compiles for batches of 1, 4, 16, ... pictures when they are first drawn; this draws one batch of each, up to the largest.
    void prepare() final;
    /// Draws pictures that nobody sees.
    void draw_some(std::size_t count);

protected:
    ServedStudent(PictureOrigin origin, std::size_t largest_batch) : origin_(std::move(origin)), largest_batch_(largest_batch) {}

    /// Pixels [N,H,W,C].
    virtual Tensor pixels(std::span<const inference::Draw> draws, std::span<const server::Draw> asked) = 0;
    /// A draw that any student could be asked for.
    virtual server::Draw any() const = 0;

private:
    PictureOrigin origin_;
    std::size_t largest_batch_;
    std::mutex busy_;  // generate and prepare
};

/// A student that owns classes, ready for them. `origin`: all but the draw.
std::unique_ptr<ServedStudent> class_student(models::Model model, const PictureOrigin& origin, const std::vector<std::int64_t>& classes, std::size_t largest_batch);

/// What students that own prompts share.
struct PromptTools {
    inference::PromptReader reader;
    double guidance = 1;
    std::optional<inference::Autoencoder> autoencoder;  // of latents
    std::mutex busy;                                    // of `autoencoder`
};

/// What the server's reading of a prompt tells a student: a tensor [1,...].
std::shared_ptr<const void> told_of(const Tensor& row);

/// A student that owns prompts.
std::unique_ptr<ServedStudent> prompt_student(models::Model model, const PictureOrigin& origin, std::shared_ptr<PromptTools> tools, std::size_t largest_batch);

}  // namespace atelier::cli
