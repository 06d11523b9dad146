#pragma once

#include <memory>
#include <string>

#include "atelier/data/loader.h"
#include "atelier/distillation/stage.h"
#include "atelier/pipeline/run_config.h"

namespace atelier::pipeline {

/// The threads that read batches ahead of a stage on `device`. By default one beside a CPU, whose
/// processors train, and on an accelerator, which leaves them idle, up to four: a batch is decoded
/// by several threads, but storage is waited for, and labels, flips and copies are made, by one.
int loader_threads(const RunConfig& config, at::Device device);

/// Real samples for a stage, read ahead of it; none where the data are only prompts.
class RealBatches {
public:
    RealBatches(std::shared_ptr<const data::Dataset> dataset, data::LoaderOptions options);

    /// Returns batch number `step`; may outlive this. Empty where the data have no samples.
    distillation::BatchSource source() const;

    /// Logs how fast samples can be read and how fast `label` used them; warns where it waited for
    /// them.
    void log_throughput(const std::string& label) const;

private:
    std::shared_ptr<data::Loader> loader_;
};

}  // namespace atelier::pipeline
