#pragma once

#include <functional>
#include <optional>

#include "atelier/cli/footprint.h"
#include "atelier/cli/run_config.h"
#include "atelier/models/model_directory.h"

namespace atelier::cli {

/// A network of the run.
struct PlannedNetwork {
    std::string who;  // "teacher", "students 0, 2"
    nlohmann::json config;
    networks::Network network;
    std::int64_t parameters = 0;
    double flops = 0;  // of a sample's evaluation
};

/// A stage of the run, for one learner and as often as there are learners alike.
struct PlannedStage {
    std::string name;                 // teacher, tsm, dm, adm
    std::size_t network = 0;          // the learner's place in RunPlan::networks
    std::int64_t times = 1, steps = 0, batch = 0, micro_batch = 0;
    std::int64_t fake_updates = 0;    // per step; 0 where there is no fake score
    double real_images = 0, generated_images = 0;  // seen in one of the times
    double flops = 0;                 // a step
    /// Bytes on the device, with so many samples at once and with or without activation checkpointing.
    std::function<double(std::int64_t at_once, bool recompute)> bytes;
};

struct RunPlan {
    models::DataForm form;
    std::int64_t classes = 0, samples = 0;  // classes: 0 where there are none, as in captioned data; samples: 0 where the data are not here
    std::int64_t label_width = 0;           // of what the networks are told: classes, or the width of a caption's embedding
    bool captions = false;
    std::string data_words, teacher_words;
    std::vector<PlannedNetwork> networks;   // the teacher first
    std::vector<PlannedStage> stages;
};

/// What a config asks for. Data and teacher need not be there where the config says their shapes. Throws core::UsageError where the parts do not fit
/// together, or too little is known.
RunPlan plan_of(const LoadedConfig& loaded);

/// How the run's stages compute, as far as memory goes.
Conditions conditions_of(const RunConfig& config, bool recompute);

}  // namespace atelier::cli
