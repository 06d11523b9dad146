#pragma once

#include <memory>
#include <string>

#include "atelier/data/loader.h"
#include "atelier/distillation/stage.h"

namespace atelier::pipeline {

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
