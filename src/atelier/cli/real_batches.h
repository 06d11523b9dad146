#pragma once

#include <memory>
#include <string>

#include "atelier/data/loader.h"
#include "atelier/distillation/stage.h"

namespace atelier::cli {

/// Real samples for a stage, read ahead of it; none where the data have none.
class RealBatches {
public:
    RealBatches(std::shared_ptr<const data::Dataset> dataset, data::LoaderOptions options);

    /// Batch number `step`; may outlive this. Empty where the data have no samples.
    distillation::BatchSource source() const;

    /// Says in the log how fast samples were read beside how fast `label` used them, and warns where it waited for them.
    void say_pace(const std::string& label) const;

private:
    std::shared_ptr<data::Loader> loader_;
};

}  // namespace atelier::cli
