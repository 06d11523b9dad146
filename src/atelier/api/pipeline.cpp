#include <ATen/Parallel.h>

#include <mutex>

#include "atelier/api/guard.h"
#include "atelier/api/opened_model.h"
#include "atelier/core/processors.h"

namespace atelier {

namespace {

constexpr std::int64_t most_samples = 100'000'000;

std::unique_ptr<api::OpenedModel> opened(const std::filesystem::path& path,
                                         const Options& options) {
    api::prepare_process();
    if (options.threads < 0)
        throw core::UsageError(fmt::format("threads is {}; it must be 0 or more", options.threads));
    if (options.threads > 0)
        at::set_num_threads(static_cast<int>(core::threads_within(options.threads, "threads")));
    return api::open_model(path, options);
}

Samples samples_of(api::OpenedModel::Drawn drawn) {
    Samples samples;
    const Tensor user = drawn.user.contiguous();
    samples.count = user.size(0);
    samples.conditions = std::move(drawn.conditions);
    if (user.dim() == 2) {
        samples.dimensions = user.size(1);
        const auto* values = user.const_data_ptr<float>();
        samples.points.assign(values, values + user.numel());
        return samples;
    }
    samples.height = user.size(1);
    samples.width = user.size(2);
    samples.channels = user.size(3);
    const auto* pixels = user.const_data_ptr<std::uint8_t>();
    samples.pixels.assign(pixels, pixels + user.numel());
    return samples;
}

}  // namespace

class Pipeline::Implementation {
public:
    Implementation(const std::filesystem::path& path, const Options& options)
        : model(opened(path, options)) {}

    template <class Work>
    auto exclusively(const Work& work) {
        return api::guarded([&] {
            const std::lock_guard one_at_a_time(busy_);
            return work(*model);
        });
    }

    const std::unique_ptr<api::OpenedModel> model;

private:
    std::mutex busy_;
};

Pipeline::Pipeline(const std::filesystem::path& path, const Options& options)
    : implementation_(
          api::guarded([&] { return std::make_unique<Implementation>(path, options); })) {}

Pipeline::~Pipeline() = default;
Pipeline::Pipeline(Pipeline&& other) noexcept = default;
Pipeline& Pipeline::operator=(Pipeline&& other) noexcept = default;

const Information& Pipeline::information() const { return implementation_->model->information(); }

Samples Pipeline::sample(const std::vector<Condition>& conditions, std::int64_t count,
                         std::uint64_t seed, std::int64_t first) {
    return implementation_->exclusively([&](api::OpenedModel& model) {
        if (count == 0)
            count = std::max<std::int64_t>(1, static_cast<std::int64_t>(conditions.size()));
        if (count < 0 || first < 0 || count > most_samples || first > most_samples)
            throw core::UsageError(
                fmt::format("{} samples from {} on cannot be drawn; request 1 to {}", count, first,
                            most_samples));
        return samples_of(model.draw(conditions, count, seed, first));
    });
}

std::int64_t Pipeline::route(const Condition& condition) {
    return implementation_->exclusively(
        [&](api::OpenedModel& model) { return model.route(condition); });
}

std::map<std::string, double> Pipeline::evaluate(const std::string& data, std::int64_t count,
                                                 std::uint64_t seed,
                                                 const EvaluationOptions& options) {
    return implementation_->exclusively(
        [&](api::OpenedModel& model) { return model.evaluate(data, count, seed, options); });
}

}  // namespace atelier
