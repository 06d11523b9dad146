#pragma once

#include <filesystem>
#include <fstream>

#include "atelier/core/tensorboard.h"
#include "atelier/distillation/stage.h"

namespace atelier::training {

/// Metrics of a stage: metrics.jsonl, one object a logged step, and TensorBoard event files beside it.
class RunLog {
public:
    /// Lines of steps at or after `first_step`, which a resumed run will write again, are dropped.
    RunLog(const std::filesystem::path& folder, std::int64_t first_step);

    void write(std::int64_t step, const distillation::Metrics& metrics);

private:
    std::ofstream lines_;
    core::TensorBoardFile board_;
};

}  // namespace atelier::training
