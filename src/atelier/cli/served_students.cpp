#include "atelier/cli/served_students.h"

namespace atelier::cli {

namespace {

class ClassStudent final : public ServedStudent {
public:
    ClassStudent(models::Model model, const PictureOrigin& origin, const std::vector<std::int64_t>& classes, std::size_t largest_batch)
        : ServedStudent(origin, largest_batch), ready_(std::move(model), origin.sampling, origin.engine, classes), any_class_(classes.front()) {}

private:
    Tensor pixels(std::span<const inference::Draw> draws, std::span<const server::Draw>) override { return models::to_user_space(ready_.model.form, ready_.draw(draws)); }
    server::Draw any() const override { return {.class_id = any_class_}; }

    inference::ReadyModel ready_;
    std::int64_t any_class_;
};

class PromptStudent final : public ServedStudent {
public:
    PromptStudent(models::Model model, const PictureOrigin& origin, std::shared_ptr<PromptTools> tools, std::size_t largest_batch)
        : ServedStudent(origin, largest_batch), tools_(std::move(tools)), model_(std::move(model), origin.sampling, origin.engine, tools_->reader.none(), tools_->guidance),
          none_(told_of(tools_->reader.none())) {}

private:
    Tensor pixels(std::span<const inference::Draw> draws, std::span<const server::Draw> asked) override {
        std::vector<Tensor> told;
        for (const server::Draw& draw : asked) told.push_back(*std::static_pointer_cast<const Tensor>(draw.told));
        const Tensor samples = model_.draw(draws, at::cat(told));
        if (!tools_->autoencoder) return models::to_user_space(model_.model.form, samples).contiguous();
        const std::lock_guard alone(tools_->busy);
        return tools_->autoencoder->pictures(samples);
    }
    server::Draw any() const override { return {.told = none_}; }

    std::shared_ptr<PromptTools> tools_;
    inference::PromptedModel model_;
    std::shared_ptr<const void> none_;
};

}  // namespace

std::vector<server::Picture> ServedStudent::generate(std::span<const server::Draw> draws, server::Clock::time_point) {
    std::vector<inference::Draw> wanted;
    for (const server::Draw& draw : draws) wanted.push_back({draw.seed, draw.number, draw.class_id});
    const std::lock_guard alone(busy_);
    const Tensor user = pixels(wanted, draws);
    std::vector<server::Picture> pictures;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        origin_.draw = wanted[i];
        origin_.prompt = draws[i].prompt;
        pictures.push_back({models::image_of(user[static_cast<std::int64_t>(i)]), picture_text(origin_)});
    }
    return pictures;
}

void ServedStudent::prepare() {
    for (std::size_t batch = 4; batch <= largest_batch_; batch *= 4) draw_some(batch);
}

void ServedStudent::draw_some(std::size_t count) { generate(std::vector<server::Draw>(count, any()), {}); }

std::unique_ptr<ServedStudent> class_student(models::Model model, const PictureOrigin& origin, const std::vector<std::int64_t>& classes, std::size_t largest_batch) {
    return std::make_unique<ClassStudent>(std::move(model), origin, classes, largest_batch);
}

std::shared_ptr<const void> told_of(const Tensor& row) { return std::make_shared<const Tensor>(row); }

std::unique_ptr<ServedStudent> prompt_student(models::Model model, const PictureOrigin& origin, std::shared_ptr<PromptTools> tools, std::size_t largest_batch) {
    return std::make_unique<PromptStudent>(std::move(model), origin, std::move(tools), largest_batch);
}

}  // namespace atelier::cli
