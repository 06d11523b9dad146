#include "atelier/cli/real_batches.h"

#include "atelier/core/log.h"

namespace atelier::cli {

namespace {

constexpr std::int64_t fewest_batches = 10;     // that say something of a pace
constexpr double share_worth_a_warning = 0.05;  // of the time

}  // namespace

RealBatches::RealBatches(std::shared_ptr<const data::Dataset> dataset, data::LoaderOptions options)
    : loader_(dataset->has_samples() ? std::make_shared<data::Loader>(dataset, std::move(options)) : nullptr) {}

distillation::BatchSource RealBatches::source() const {
    if (!loader_) return {};
    return [loader = loader_](std::int64_t step) {
        const data::Batch batch = loader->at(step);
        return distillation::LabelledBatch{batch.samples, batch.labels};
    };
}

void RealBatches::say_pace(const std::string& label) const {
    if (!loader_) return;
    const data::Pace pace = loader_->pace();
    if (pace.batches < fewest_batches) return;
    const double waited = pace.waited_seconds / pace.seconds;
    const std::string words = fmt::format("{}: data can be read at {:.4g} samples/s and are used at {:.4g}; {:.2g} % of the time went in waiting for them", label,
                                          pace.samples_read / pace.reading_seconds, pace.samples_used / pace.seconds, 100 * waited);
    if (waited < share_worth_a_warning) core::log::info("{}", words);
    else core::log::warning("{}. Smaller or already resized images (atelier import), a faster disk, or more cores would help", words);
}

}  // namespace atelier::cli
