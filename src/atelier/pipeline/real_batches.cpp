#include "atelier/pipeline/real_batches.h"

#include "atelier/core/log.h"

namespace atelier::pipeline {

namespace {

constexpr std::int64_t min_batches = 10;   // for a meaningful measurement
constexpr double warning_fraction = 0.05;  // of the time spent waiting

}  // namespace

RealBatches::RealBatches(std::shared_ptr<const data::Dataset> dataset, data::LoaderOptions options)
    : loader_(dataset->has_samples() ? std::make_shared<data::Loader>(dataset, std::move(options))
                                     : nullptr) {}

distillation::BatchSource RealBatches::source() const {
    if (!loader_) return {};
    return [loader = loader_](std::int64_t step) {
        const data::Batch batch = loader->at(step);
        return distillation::LabelledBatch{batch.samples, batch.labels};
    };
}

void RealBatches::log_throughput(const std::string& label) const {
    if (!loader_) return;
    const data::Throughput throughput = loader_->throughput();
    if (throughput.batches < min_batches) return;
    const double waiting_fraction = throughput.waited_seconds / throughput.seconds;
    const std::string message = fmt::format(
        "{}: data can be read at {:.4g} samples/s and are used at {:.4g}; {:.2g} % of the time "
        "was spent waiting for them",
        label, throughput.samples_read / throughput.reading_seconds,
        throughput.samples_used / throughput.seconds, 100 * waiting_fraction);
    if (waiting_fraction < warning_fraction) core::log::info("{}", message);
    else
        core::log::warning(
            "{}. Smaller or already resized images (atelier import), a faster disk, or more cores "
            "would help",
            message);
}

}  // namespace atelier::pipeline
