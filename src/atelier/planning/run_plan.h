#pragma once

#include <functional>
#include <numeric>
#include <optional>

#include "atelier/models/model_directory.h"
#include "atelier/pipeline/run_config.h"
#include "atelier/planning/footprint.h"

namespace atelier::planning {

/// A network of the run.
struct PlannedNetwork {
    std::string who;  // "teacher", "students 0, 2"
    nlohmann::json config;
    networks::Network network;
    std::int64_t parameters = 0;
    double flops = 0;  // per sample and evaluation
};

/// A stage of the run, for one or several networks of the same size.
struct PlannedStage {
    pipeline::StageKind kind;
    std::size_t network = 0;  // index of the trained network in RunPlan::networks
    bool of_trunk = false;
    /// `times` networks; `steps` of each, or the mean, rounded, where budgets differ.
    std::int64_t times = 1, steps = 0, batch = 0, micro_batch = 0;
    std::vector<std::int64_t> steps_of_each;       // where budgets differ; else empty
    std::int64_t fake_updates = 0;                 // per step; 0 where there is no fake score
    double real_images = 0, generated_images = 0;  // seen by each network
    double flops = 0;                              // per step
    /// Bytes on the device, for a micro-batch of so many samples, with or without activation
    /// checkpointing.
    std::function<double(std::int64_t micro_batch, bool recompute)> bytes;

    std::string name() const { return pipeline::name_of(kind); }
    /// Of all `times` networks.
    std::int64_t all_steps() const {
        if (steps_of_each.empty()) return times * steps;
        return std::accumulate(steps_of_each.begin(), steps_of_each.end(), std::int64_t{0});
    }
};

struct RunPlan {
    data::SampleSpec spec;
    std::int64_t classes = 0, samples = 0;  // classes: 0 where there are none, as in captioned
                                            // data; samples: 0 where the data are not here
    std::int64_t label_width =
        0;  // of the conditioning: classes, or the width of a caption's embedding
    bool captions = false;
    std::string data_description, teacher_description;
    /// The students' budgets (pipeline::known_shares); unset where they differ and are not known.
    std::optional<std::vector<double>> shares;
    std::vector<PlannedNetwork> networks;  // the teacher first
    std::vector<PlannedStage> stages;
};

/// The run that a config describes. Data and teacher need not exist where the config gives their
/// shapes. Throws core::UsageError where the settings do not fit together, or too little is known.
/// `ranks` train each network together, and divide what `optimizer_sharding` lets them.
RunPlan plan_run(const pipeline::LoadedConfig& loaded, std::int64_t ranks = 1);

/// How the run's stages compute, as far as it affects memory.
ExecutionMode execution_mode(const pipeline::RunConfig& config, bool recompute);

}  // namespace atelier::planning
