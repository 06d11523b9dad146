#pragma once

#include <filesystem>
#include <fstream>

#include "atelier/core/tensorboard.h"
#include "atelier/distillation/stage.h"

namespace atelier::training {

/// Metrics of a stage: metrics.jsonl, one object per logged step, and TensorBoard event files
/// beside it.
class RunLog {
public:
    /// Drops existing lines of steps from `first_step` on, which a resumed run writes again.
    RunLog(const std::filesystem::path& folder, std::int64_t first_step);

    void write(std::int64_t step, const distillation::Metrics& metrics);

private:
    std::ofstream lines_;
    core::TensorBoardFile board_;
};

}  // namespace atelier::training
