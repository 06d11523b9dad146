#include "atelier/pipeline/real_batches.h"

#include <algorithm>

#include "atelier/core/log.h"
#include "atelier/core/processors.h"

namespace atelier::pipeline {

namespace {

constexpr std::int64_t min_batches = 10;   // for a meaningful measurement
constexpr double warning_fraction = 0.05;  // of the time spent waiting

constexpr std::int64_t most_loader_threads = 4;

}  // namespace

int loader_threads(const RunConfig& config, at::Device device) {
    if (config.loader_threads > 0) return static_cast<int>(config.loader_threads);
    if (device.is_cpu()) return 1;
    return static_cast<int>(
        std::clamp<std::int64_t>(core::usable_processors(), 1, most_loader_threads));
}

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
            "{}. Smaller or already resized images (atelier import), a faster disk, more cores, or "
            "more data.loader_threads would help",
            message);
}

}  // namespace atelier::pipeline
