#include "atelier/serving/served_students.h"

#include "atelier/core/error.h"

namespace atelier::serving {

namespace {

class ClassStudent final : public ServedStudent {
public:
    ClassStudent(models::Model model, const ImageOrigin& origin,
                 const std::vector<std::int64_t>& classes, std::size_t max_batch)
        : ServedStudent(origin, max_batch),
          ready_(std::move(model), origin.sampling, origin.engine, classes),
          any_class_(classes.front()) {}

private:
    Tensor pixels(std::span<const inference::Draw> draws, std::span<const server::Draw>) override {
        return data::to_user_space(ready_.model.spec, ready_.draw(draws));
    }
    server::Draw any_draw() const override { return {.class_id = any_class_}; }

    inference::ReadyModel ready_;
    std::int64_t any_class_;
};

/// A tensor [1,...].
struct TensorConditioning final : server::Conditioning {
    explicit TensorConditioning(Tensor row) : tensor(std::move(row)) {}
    Tensor tensor;
};

/// Throws core::Error if the conditioning is missing or was made by another generator.
const Tensor& tensor_of(const server::Draw& draw) {
    const auto* conditioning = dynamic_cast<const TensorConditioning*>(draw.conditioning.get());
    if (conditioning == nullptr) core::fail("a draw has no conditioning of this model's prompts");
    return conditioning->tensor;
}

class PromptStudent final : public ServedStudent {
public:
    PromptStudent(models::Model model, const ImageOrigin& origin,
                  std::shared_ptr<PromptTools> tools, std::size_t max_batch)
        : ServedStudent(origin, max_batch),
          tools_(std::move(tools)),
          model_(std::move(model), origin.sampling, origin.engine, tools_->reader.empty_prompt(),
                 tools_->guidance),
          none_(conditioning_of(tools_->reader.empty_prompt())) {}

private:
    Tensor pixels(std::span<const inference::Draw> draws,
                  std::span<const server::Draw> requested) override {
        std::vector<Tensor> conditioning;
        for (const server::Draw& draw : requested) conditioning.push_back(tensor_of(draw));
        const Tensor samples = model_.draw(draws, at::cat(conditioning));
        if (!tools_->autoencoder)
            return data::to_user_space(model_.model.spec, samples).contiguous();
        const std::lock_guard alone(tools_->busy);
        return tools_->autoencoder->decode_to_pixels(samples);
    }
    server::Draw any_draw() const override { return {.conditioning = none_}; }

    std::shared_ptr<PromptTools> tools_;
    inference::PromptedModel model_;
    std::shared_ptr<const server::Conditioning> none_;
};

}  // namespace

std::vector<server::GeneratedImage> ServedStudent::generate(std::span<const server::Draw> draws,
                                                            server::Clock::time_point) {
    std::vector<inference::Draw> inputs;
    for (const server::Draw& draw : draws)
        inputs.push_back({draw.seed, draw.number, draw.class_id});
    const std::lock_guard alone(busy_);
    const Tensor user = pixels(inputs, draws);
    std::vector<server::GeneratedImage> images;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        origin_.draw = inputs[i];
        origin_.prompt = draws[i].prompt;
        images.push_back(
            {data::image_of(user[static_cast<std::int64_t>(i)]), image_metadata(origin_)});
    }
    return images;
}

void ServedStudent::prepare() {
    for (std::size_t batch = 4; batch <= max_batch_; batch *= 4) warm_up(batch);
}

void ServedStudent::warm_up(std::size_t count) {
    generate(std::vector<server::Draw>(count, any_draw()), {});
}

std::unique_ptr<ServedStudent> class_student(models::Model model, const ImageOrigin& origin,
                                             const std::vector<std::int64_t>& classes,
                                             std::size_t max_batch) {
    return std::make_unique<ClassStudent>(std::move(model), origin, classes, max_batch);
}

std::shared_ptr<const server::Conditioning> conditioning_of(const Tensor& row) {
    return std::make_shared<const TensorConditioning>(row);
}

std::unique_ptr<ServedStudent> prompt_student(models::Model model, const ImageOrigin& origin,
                                              std::shared_ptr<PromptTools> tools,
                                              std::size_t max_batch) {
    return std::make_unique<PromptStudent>(std::move(model), origin, std::move(tools), max_batch);
}

}  // namespace atelier::serving
